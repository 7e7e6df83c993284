/** All dashboards that one may see: search, who may see them, and the way to watch, edit and make them. */

import { useEffect, useState } from "preact/hooks";
import type { BoardDocument, DashboardAnswer } from "../../board/document.js";
import { call, login, messageOf } from "../api.js";
import { go, href } from "../router.js";
import { ImportDialog } from "../transfer/import-dialog.js";
import { Dialog } from "../ui/dialog.js";
import { Choice, Fault, Field } from "../ui/field.js";
import { useLoad } from "../ui/load.js";
import "../../style/admin.css";
import { useWatching, type Watching } from "./watching.js";

export interface Summary {
  id: string;
  ownerId: string | null;
  title: string;
  visibility: "private" | "link" | "public";
  revision: number;
  ownerEmail?: string | null;
  updatedAt?: string | null;
}

interface List {
  dashboards: Summary[];
  shared: Summary[];
  cursor: string | null;
  /** There are so many that not all were looked at. */
  more?: boolean;
}

type Wanted = { query: string; visibility: "" | Summary["visibility"]; sort: "updated" | "title" };

const ALL: Wanted = { query: "", visibility: "", sort: "updated" };
const PAGE = 50;
/** A person pauses in typing. */
const PAUSE_MS = 250;
const AT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const VISIBILITY = { private: "Members only", link: "By link", public: "Public" } as const;

export function Dashboards() {
  const role = login.value?.user.role;
  const [typed, setTyped] = useState("");
  const [wanted, setWanted] = useState(ALL);
  const path = pathOf(wanted);
  const { value, error } = useLoad<List>(path);
  const [more, setMore] = useState<Summary[]>([]);
  const [cursor, setCursor] = useState<string | null>(null);
  const [fault, setFault] = useState<string>();
  const [making, setMaking] = useState(false);
  const [importing, setImporting] = useState(false);

  useEffect(() => {
    setMore([]);
    setCursor(value?.cursor ?? null);
    setFault(undefined);
  }, [value]);
  useEffect(() => {
    const timer = setTimeout(() => setWanted((before) => ({ ...before, query: typed.trim() })), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed]);

  async function loadMore(): Promise<void> {
    if (!cursor) return;
    try {
      const next = await call<List>("GET", `${path}&cursor=${encodeURIComponent(cursor)}`);
      setMore((before) => [...before, ...next.dashboards]);
      setCursor(next.cursor);
    } catch (error) {
      setFault(messageOf(error));
    }
  }

  const own = [...(value?.dashboards ?? []), ...more];
  const known = new Set(own.map(({ id }) => id));
  const all = [...own, ...(value?.shared ?? []).filter(({ id }) => !known.has(id))];
  const watching = useWatching(role === "viewer" ? [] : all.map(({ id }) => id));
  const narrowed = wanted.query !== "" || wanted.visibility !== "";
  return (
    <>
      <div class="heading">
        <h2>Dashboards</h2>
        <span class="grow" />
        {role === "viewer" ? null : (
          <>
            <button type="button" onClick={() => setImporting(true)}>
              Import
            </button>
            <button type="button" class="primary" onClick={() => setMaking(true)}>
              New dashboard
            </button>
          </>
        )}
      </div>
      <Fault>{fault ?? (error ? messageOf(error) : undefined)}</Fault>
      {all.length > 5 || narrowed || typed ? (
        <div class="columns filters" role="search">
          <Field label="Search" type="search" value={typed} onInput={setTyped} placeholder="Title" />
          <Choice
            label="Who may see it"
            value={wanted.visibility}
            onChange={(visibility) => setWanted((before) => ({ ...before, visibility }))}
            choices={[["", "All"], ["private", VISIBILITY.private], ["link", VISIBILITY.link], ["public", VISIBILITY.public]]}
          />
          <Choice
            label="Order"
            value={wanted.sort}
            onChange={(sort) => setWanted((before) => ({ ...before, sort }))}
            choices={[["updated", "Changed last"], ["title", "Title"]]}
          />
        </div>
      ) : null}
      {value && !all.length && !narrowed ? (
        <div class="empty">
          <p>There is no dashboard yet.</p>
          {role === "viewer" ? (
            <p>Ask an editor to add you to one.</p>
          ) : (
            <p>
              <button type="button" class="primary" onClick={() => setMaking(true)}>
                Make the first one
              </button>
            </p>
          )}
        </div>
      ) : null}
      {all.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="Dashboards">
          <table class="list">
            <thead>
              <tr>
                <th scope="col">Title</th>
                <th scope="col">Who may see it</th>
                <th scope="col">Owner</th>
                <th scope="col">Changed</th>
                {role === "viewer" ? null : (
                  <th scope="col" class="n">
                    Watching
                  </th>
                )}
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {all.map((one) => (
                <tr key={one.id}>
                  <th scope="row">
                    <a href={`/d/${encodeURIComponent(one.id)}`}>{one.title}</a>
                  </th>
                  <td>{VISIBILITY[one.visibility]}</td>
                  <td class="note">{one.ownerEmail ?? (known.has(one.id) ? "" : "shared with you")}</td>
                  <td class="note">{one.updatedAt ? AT.format(Date.parse(one.updatedAt)) : ""}</td>
                  {role === "viewer" ? null : <td class="n">{watchingText(watching.get(one.id))}</td>}
                  <td class="n">
                    <a class="button" href={href("dashboards", one.id, "edit")} aria-label={`Edit ${one.title}`}>
                      Edit
                    </a>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {value && !all.length && narrowed ? <p class="empty">No dashboard is like that.</p> : null}
      {value?.more ? <p class="note">There are more dashboards than were searched.</p> : null}
      {cursor ? (
        <p>
          <button type="button" onClick={() => void loadMore()}>
            Show more
          </button>
        </p>
      ) : null}
      {making ? <NewDashboard onClose={() => setMaking(false)} /> : null}
      {importing ? <ImportDialog onClose={() => setImporting(false)} /> : null}
    </>
  );
}

function pathOf({ query, visibility, sort }: Wanted): string {
  const asked = new URLSearchParams({ limit: String(PAGE), sort, ...(query ? { query } : {}), ...(visibility ? { visibility } : {}) });
  return `/dashboards?${asked}`;
}

function watchingText(found: Watching | undefined): string {
  return found ? `${found.connections}${found.more ? "+" : ""}` : "–";
}

function NewDashboard({ onClose }: { onClose: () => void }) {
  const [title, setTitle] = useState("");
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    const document: BoardDocument = {
      schemaVersion: 1,
      title: title.trim(),
      columns: 12,
      width: "lg",
      settings: {},
      datasources: [],
      panes: [],
    };
    try {
      const made = await call<DashboardAnswer>("POST", "/dashboards", { body: { document } });
      go("dashboards", made.id, "edit");
    } catch (error) {
      setFault(messageOf(error));
      setBusy(false);
    }
  }

  return (
    <Dialog title="New dashboard" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="Title" value={title} onInput={setTitle} placeholder="Heating, building 3" required />
        <Fault>{fault}</Fault>
        <button type="submit" class="primary" disabled={busy || !title.trim()}>
          Create
        </button>
      </form>
    </Dialog>
  );
}
