/** People: who may sign in, and as what. */

import { useEffect, useState } from "preact/hooks";
import { call, login, messageOf } from "../api.js";
import { confirm } from "../ui/confirm.js";
import { CopyText } from "../ui/copy.js";
import { Dialog } from "../ui/dialog.js";
import { Choice, Fault, Field } from "../ui/field.js";
import { useLoad } from "../ui/load.js";
import { toast } from "../ui/toast.js";
import { ROLES, activeText, resetText, roleText, type Owned, type Person, type Role } from "./people/changes.js";
import "../../style/admin.css";

interface List {
  users: Person[];
  cursor: string | null;
}

interface OneTime {
  email: string;
  password: string;
}

/** A person types; the server is asked when they pause for so long. */
const PAUSE_MS = 300;
const PAGE = 50;

export function People() {
  const own = login.value?.user.id;
  const [search, setSearch] = useState("");
  const [asked, setAsked] = useState("");
  useEffect(() => {
    const waiting = setTimeout(() => setAsked(search.trim()), PAUSE_MS);
    return () => clearTimeout(waiting);
  }, [search]);
  const path = `/users?limit=${PAGE}${asked ? `&query=${encodeURIComponent(asked)}` : ""}`;
  const { value, error, reload } = useLoad<List>(path);
  const [more, setMore] = useState<Person[]>([]);
  /** People as they were answered after a change, until the list is there again. */
  const [changed, setChanged] = useState<Person[]>([]);
  const [cursor, setCursor] = useState<string | null>(null);
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);
  const [adding, setAdding] = useState(false);
  const [shown, setShown] = useState<OneTime>();
  useEffect(() => {
    setMore([]);
    setChanged([]);
    setCursor(value?.cursor ?? null);
  }, [value]);

  async function loadMore(): Promise<void> {
    try {
      const next = await call<List>("GET", `${path}&cursor=${encodeURIComponent(cursor ?? "")}`);
      setMore((before) => [...before, ...next.users]);
      setCursor(next.cursor);
    } catch (problem) {
      setFault(messageOf(problem));
    }
  }

  async function act(change: () => Promise<unknown>): Promise<void> {
    setBusy(true);
    setFault(undefined);
    try {
      await change();
    } catch (problem) {
      setFault(messageOf(problem));
    } finally {
      setBusy(false);
      reload();
    }
  }

  async function patch(person: Person, body: { role: Role } | { active: boolean }): Promise<void> {
    const after = await call<Person>("PATCH", `/users/${encodeURIComponent(person.id)}`, { body });
    setChanged((before) => [after, ...before]);
  }

  async function setRole(person: Person, role: Role): Promise<void> {
    const agreed = await confirm({
      title: `Make ${person.email} ${role === "viewer" ? "a viewer" : role === "editor" ? "an editor" : "an administrator"}?`,
      text: roleText(person, role),
      action: "Change the role",
      danger: person.role === "admin",
    });
    if (!agreed) return;
    await act(async () => {
      await patch(person, { role });
      toast(`${person.email} is ${role === "viewer" ? "a viewer" : role === "editor" ? "an editor" : "an administrator"} now.`);
    });
  }

  async function setActive(person: Person, active: boolean): Promise<void> {
    const agreed = await confirm({
      title: `${active ? "Activate" : "Deactivate"} ${person.email}?`,
      text: activeText(person, active, active ? undefined : await ownedBy(person.id)),
      action: active ? "Activate" : "Deactivate",
      danger: !active,
    });
    if (!agreed) return;
    await act(async () => {
      await patch(person, { active });
      toast(`${person.email} is ${active ? "active" : "deactivated"}.`);
    });
  }

  async function reset(person: Person): Promise<void> {
    const agreed = await confirm({ title: "Give a one-time password?", text: resetText(person), action: "Reset the password", danger: true });
    if (!agreed) return;
    await act(async () => {
      const made = await call<{ oneTimePassword: string }>("POST", `/users/${encodeURIComponent(person.id)}/password:reset`);
      setShown({ email: person.email, password: made.oneTimePassword });
    });
  }

  const all = [...(value?.users ?? []), ...more].map((person) => changed.find(({ id }) => id === person.id) ?? person);
  return (
    <>
      <div class="heading">
        <h2>People</h2>
        <span class="grow" />
        <button type="button" class="primary" onClick={() => setAdding(true)}>
          Add a person
        </button>
      </div>
      <div class="search">
        <Field label="Search" type="search" value={search} onInput={setSearch} placeholder="Part of an e-mail" />
      </div>
      <Fault>{fault ?? (error ? messageOf(error) : undefined)}</Fault>
      {value || error ? null : <p class="empty">Loading…</p>}
      {all.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="People">
          <table class="list people folds">
            <thead>
              <tr>
                <th scope="col">E-mail</th>
                <th scope="col">Role</th>
                <th scope="col">Sign-in</th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {all.map((person) => (
                <tr key={person.id}>
                  <th scope="row">
                    {person.email}
                    {person.id === own ? <span class="note"> you</span> : null}
                  </th>
                  <td>
                    {person.id === own ? (
                      <span title="You cannot take your own admin rights. Ask another administrator.">
                        {ROLES.find(([role]) => role === person.role)?.[1]}
                      </span>
                    ) : (
                      <RoleChoice person={person} disabled={busy} onChange={(role) => void setRole(person, role)} />
                    )}
                  </td>
                  <td>
                    <SignIn person={person} />
                  </td>
                  <td class="n">
                    {person.id === own ? null : (
                      <span class="actions">
                        <button
                          type="button"
                          class="small"
                          disabled={busy}
                          aria-label={`Reset password of ${person.email}`}
                          onClick={() => void reset(person)}
                        >
                          Reset password
                        </button>
                        <button
                          type="button"
                          class={person.active ? "small danger" : "small"}
                          disabled={busy}
                          aria-label={`${person.active ? "Deactivate" : "Activate"} ${person.email}`}
                          onClick={() => void setActive(person, !person.active)}
                        >
                          {person.active ? "Deactivate" : "Activate"}
                        </button>
                      </span>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {value && !all.length ? (
        <p class="empty">{cursor ? "Nobody among the first 1000 people." : `No e-mail has “${asked}” in it.`}</p>
      ) : null}
      {cursor ? (
        <p class="after">
          <button type="button" onClick={() => void loadMore()}>
            {asked ? "Search on" : "Show more"}
          </button>
        </p>
      ) : null}
      {adding ? (
        <AddPerson
          onDone={(made) => {
            setAdding(false);
            setShown(made);
            reload();
          }}
          onClose={() => setAdding(false)}
        />
      ) : null}
      {shown ? <OneTimePassword {...shown} onClose={() => setShown(undefined)} /> : null}
    </>
  );
}

function RoleChoice({ person, disabled, onChange }: { person: Person; disabled: boolean; onChange: (role: Role) => void }) {
  return (
    <select
      aria-label={`Role of ${person.email}`}
      value={person.role}
      disabled={disabled}
      onChange={(event) => {
        const wanted = event.currentTarget.value as Role;
        // Until it is done, the list says what is.
        event.currentTarget.value = person.role;
        onChange(wanted);
      }}
    >
      {ROLES.map(([role, name]) => (
        <option key={role} value={role}>
          {name}
        </option>
      ))}
    </select>
  );
}

function SignIn({ person }: { person: Person }) {
  if (!person.active) {
    return (
      <span class="state">
        <span aria-hidden="true">■</span> deactivated
      </span>
    );
  }
  return person.mustChangePassword ? (
    <span class="state warn">
      <span aria-hidden="true">▲</span> has a one-time password
    </span>
  ) : (
    <span class="state ok">
      <span aria-hidden="true">●</span> active
    </span>
  );
}

function AddPerson({ onDone, onClose }: { onDone: (made: OneTime) => void; onClose: () => void }) {
  const [email, setEmail] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setFault(undefined);
    try {
      const made = await call<{ user: Person; oneTimePassword: string }>("POST", "/users", { body: { email: email.trim(), role } });
      onDone({ email: made.user.email, password: made.oneTimePassword });
    } catch (error) {
      setFault(messageOf(error));
      setBusy(false);
    }
  }

  return (
    <Dialog title="Add a person" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="E-mail" type="email" value={email} onInput={setEmail} placeholder="name@example.com" required />
        <Choice label="Role" value={role} onChange={setRole} choices={ROLES.map(([value, name, text]) => [value, `${name}: ${text}`] as const)} />
        <p class="note">You get a one-time password to hand over. No e-mail is sent.</p>
        <Fault>{fault}</Fault>
        <p class="after">
          <button type="submit" class="primary" disabled={busy || !email.trim()}>
            {busy ? "Adding…" : "Add"}
          </button>
        </p>
      </form>
    </Dialog>
  );
}

function OneTimePassword({ email, password, onClose }: OneTime & { onClose: () => void }) {
  return (
    <Dialog
      title="One-time password"
      onClose={onClose}
      footer={
        <button type="button" class="primary" onClick={onClose}>
          I have it
        </button>
      }
    >
      <p>Hand it to {email}. It works for a day, and has to be changed at the first sign-in.</p>
      <CopyText label={`One-time password of ${email}`} text={password} />
      <p class="state warn">
        <span aria-hidden="true">▲</span> It is not shown again.
      </p>
    </Dialog>
  );
}

/** What a person owns, of the first dashboards there are. Undefined when it could not be checked. */
async function ownedBy(id: string): Promise<Owned | undefined> {
  interface Page {
    dashboards: { ownerId: string | null; visibility: string }[];
    cursor: string | null;
  }
  try {
    const { dashboards, cursor } = await call<Page>("GET", "/dashboards?limit=200");
    const own = dashboards.filter(({ ownerId }) => ownerId === id);
    return { all: own.length, open: own.filter(({ visibility }) => visibility !== "private").length, more: cursor !== null };
  } catch {
    return undefined;
  }
}
