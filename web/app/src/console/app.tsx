/** The console: sign-in first, then the screens. */

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { login, signOut } from "./api.js";
import { href, query, route } from "./router.js";
import { Dashboards } from "./screens/dashboards.js";
import { ChangePassword } from "./screens/password.js";
import { SignIn } from "./screens/sign-in.js";
import { Confirmations } from "./ui/confirm.js";
import { Toasts } from "./ui/toast.js";

type Screen = ComponentType<{ parts: string[] }>;
type Role = "admin" | "editor" | "viewer";

interface Entry {
  path: string;
  title: string;
  /** Loaded when it is first shown, so that the sign-in is small. */
  load: () => Promise<Screen>;
  roles: readonly Role[];
  group?: string;
}

const EVERYBODY = ["admin", "editor", "viewer"] as const;
const ADMINS = ["admin"] as const;

const ENTRIES: readonly Entry[] = [
  { path: "dashboards", title: "Dashboards", load: async () => Dashboards, roles: EVERYBODY },
  { path: "brokers", title: "Brokers", load: async () => (await import("./screens/brokers.js")).Brokers, roles: ADMINS, group: "Profiles" },
  {
    path: "credentials",
    title: "Credentials",
    load: async () => (await import("./screens/credentials.js")).Credentials,
    roles: ADMINS,
    group: "Profiles",
  },
  { path: "people", title: "People", load: async () => (await import("./screens/people.js")).People, roles: ADMINS, group: "Operate" },
  { path: "audit", title: "Audit", load: async () => (await import("./screens/audit.js")).Audit, roles: ADMINS, group: "Operate" },
  {
    path: "operations",
    title: "Operations",
    load: async () => (await import("./screens/operations.js")).Operations,
    roles: ADMINS,
    group: "Operate",
  },
  { path: "account", title: "Your account", load: async () => (await import("./screens/account.js")).Account, roles: EVERYBODY, group: "You" },
];

export function App() {
  return (
    <>
      <Inside />
      <Confirmations />
      <Toasts />
    </>
  );
}

function Inside() {
  const kept = login.value;
  const [name = "dashboards", ...parts] = route.value;
  const signedIn = kept && name === "sign-in";
  useEffect(() => {
    // A person who was sent here to sign in goes on where they were. Only to a page of this site.
    const then = query().get("then");
    if (!signedIn) return;
    if (then && /^\/[pds]\/[^/\\]+$/.test(then)) location.assign(then);
    else location.hash = href("dashboards");
  }, [signedIn]);
  if (!kept) return <SignIn />;
  if (kept.user.mustChangePassword) return <ChangePassword forced />;
  if (name === "dashboards" && parts[1] === "edit") return <Lazy key={parts[0]} load={loadEditor} parts={parts} />;
  const entry = ENTRIES.find(({ path, roles }) => path === name && (roles as readonly Role[]).includes(kept.user.role));
  return (
    <>
      <header class="bar">
        <h1>
          <a class="home" href={href("dashboards")}>
            <img src="/icon.svg" width="22" height="22" alt="" /> Tidegate
          </a>
        </h1>
        <span class="grow" />
        <span class="note optional">{kept.user.email}</span>
        <button type="button" onClick={() => void signOut()}>
          Sign out
        </button>
      </header>
      <div class="split">
        <Menu current={entry?.path} role={kept.user.role} />
        <main>
          {entry ? <Lazy key={entry.path} load={entry.load} parts={parts} /> : <p class="empty">There is nothing here for you.</p>}
        </main>
      </div>
    </>
  );
}

const loadEditor = async (): Promise<Screen> => (await import("./editor/editor.js")).Editor;

function Lazy({ load, parts }: { load: () => Promise<Screen>; parts: string[] }) {
  const [screen, setScreen] = useState<Screen>();
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    load().then(
      (got) => setScreen(() => got),
      () => setFailed(true),
    );
  }, [load]);
  if (failed) {
    return (
      <p class="empty">
        This part could not be loaded. There may be a newer version.{" "}
        <button type="button" onClick={() => location.reload()}>
          Load again
        </button>
      </p>
    );
  }
  const Screen = screen;
  return Screen ? <Screen parts={parts} /> : <p class="empty">Loading…</p>;
}

function Menu({ current, role }: { current: string | undefined; role: Role }) {
  let group: string | undefined;
  return (
    <nav class="side" aria-label="Screens">
      {ENTRIES.filter(({ roles }) => (roles as readonly Role[]).includes(role)).map((entry) => {
        const heading = entry.group !== group ? entry.group : undefined;
        group = entry.group;
        return (
          <>
            {heading ? <b>{heading}</b> : null}
            <a href={href(entry.path)} aria-current={entry.path === current ? "page" : undefined}>
              {entry.title}
            </a>
          </>
        );
      })}
    </nav>
  );
}
