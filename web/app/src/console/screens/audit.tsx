/** The audit log: who did what, to what, and when. */

import { useEffect, useState } from "preact/hooks";
import { call, messageOf } from "../api.js";
import { Fault, Field } from "../ui/field.js";
import { ACTIONS, NO_FILTERS, actionText, auditQuery, metadataText, type AuditEvent, type Filters } from "./audit/events.js";
import { useNames, type Names } from "./people/names.js";
import "../../style/admin.css";

interface Page {
  events: AuditEvent[];
  cursor: string | null;
}

const AT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function Audit() {
  const names = useNames();
  const [filters, setFilters] = useState<Filters>(NO_FILTERS);
  const [asked, setAsked] = useState<Filters>(NO_FILTERS);
  const [turn, setTurn] = useState(0);
  const [events, setEvents] = useState<AuditEvent[]>();
  const [cursor, setCursor] = useState<string | null>(null);
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);
  const set = (name: keyof Filters, value: string): void => setFilters((before) => ({ ...before, [name]: value }));

  useEffect(() => {
    const stop = new AbortController();
    void load(undefined, stop.signal);
    return () => stop.abort();
  }, [asked, turn]);

  async function load(after: string | undefined, signal?: AbortSignal): Promise<void> {
    setBusy(true);
    setFault(undefined);
    try {
      const path = auditQuery(asked, names.idOf, after);
      const page = await call<Page>("GET", path, signal ? { signal } : {});
      setEvents((before) => (after ? [...(before ?? []), ...page.events] : page.events));
      setCursor(page.cursor);
    } catch (error) {
      if (signal?.aborted) return;
      setFault(messageOf(error));
    }
    setBusy(false);
  }

  /** A click on a person or a thing shows what else there is of it. */
  function only(name: "actor" | "target" | "action", value: string): void {
    const wanted = { ...NO_FILTERS, [name]: value };
    setFilters(wanted);
    setAsked(wanted);
  }

  return (
    <>
      <div class="heading">
        <h2>Audit</h2>
        <span class="grow" />
        <button type="button" disabled={busy} onClick={() => setTurn((before) => before + 1)}>
          Refresh
        </button>
      </div>
      <form
        class="columns filters"
        onSubmit={(event) => {
          event.preventDefault();
          setAsked(filters);
          setTurn((before) => before + 1);
        }}
      >
        <Field label="Action" value={filters.action} onInput={(value) => set("action", value)} placeholder="user.admin_updated" list={ACTIONS} />
        <Field
          label="Who"
          value={filters.actor}
          onInput={(value) => set("actor", value)}
          placeholder="E-mail or id"
          list={names.emails.slice(0, 200)}
        />
        <Field label="To what" value={filters.target} onInput={(value) => set("target", value)} placeholder="Id or e-mail" />
        <Field label="From" type="datetime-local" value={filters.from} onInput={(value) => set("from", value)} />
        <Field label="Before" type="datetime-local" value={filters.to} onInput={(value) => set("to", value)} />
        <span class="row buttons">
          <button type="submit" class="primary" disabled={busy}>
            Show
          </button>
          {JSON.stringify(asked) === JSON.stringify(NO_FILTERS) ? null : (
            <button
              type="button"
              onClick={() => {
                setFilters(NO_FILTERS);
                setAsked(NO_FILTERS);
              }}
            >
              Show all
            </button>
          )}
        </span>
      </form>
      <p class="note again">Times are in {ZONE}. Events are kept 400 days.</p>
      <Fault>{fault}</Fault>
      {events || fault ? null : <p class="empty">Loading…</p>}
      {events?.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="Audit events">
          <table class="list folds">
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">What</th>
                <th scope="col">Who</th>
                <th scope="col">To what</th>
                <th scope="col">More</th>
              </tr>
            </thead>
            <tbody>
              {events.map((event, index) => (
                <Row key={`${event.at} ${event.action} ${event.targetId} ${index}`} event={event} names={names} only={only} />
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {events && !events.length && !cursor ? <p class="empty">Nothing like that is in the log.</p> : null}
      {events && !events.length && cursor ? <p class="empty">Nothing like that among the newest events. There are older ones.</p> : null}
      {cursor ? (
        <p class="after">
          <button type="button" disabled={busy} onClick={() => void load(cursor)}>
            Older
          </button>
        </p>
      ) : null}
    </>
  );
}

function Row(props: { event: AuditEvent; names: Names; only: (name: "actor" | "target" | "action", value: string) => void }) {
  const { event, names, only } = props;
  const { action, actorId, targetId, targetType, count, metadata } = event;
  const actor = names.of(actorId);
  const target = names.of(targetId);
  return (
    <tr>
      <td>
        <time dateTime={event.at}>{AT.format(new Date(event.at))}</time>
        {count > 1 ? (
          <div class="note">
            {count} times, last {AT.format(new Date(event.lastAt))}
          </div>
        ) : null}
      </td>
      <th scope="row">
        <button type="button" class="quiet small" title={`Only ${action}`} onClick={() => only("action", action)}>
          {actionText(action)}
        </button>
      </th>
      <td>
        {actorId ? (
          <button type="button" class="quiet small" title="Only what they did" onClick={() => only("actor", actor ?? actorId)}>
            {actor ?? <span class="mono">{actorId}</span>}
          </button>
        ) : (
          <span class="note">nobody signed in</span>
        )}
      </td>
      <td>
        <span class="note">{targetType}</span>{" "}
        {targetId === "unknown" ? (
          <span class="note">unknown</span>
        ) : (
          <button type="button" class="quiet small" title="Only what was done to it" onClick={() => only("target", target ?? targetId)}>
            {target ?? <span class="mono">{targetId}</span>}
          </button>
        )}
      </td>
      <td class="more">
        {metadataText(metadata, names.of).map((line) => (
          <div key={line} class="note">
            {line}
          </div>
        ))}
      </td>
    </tr>
  );
}
