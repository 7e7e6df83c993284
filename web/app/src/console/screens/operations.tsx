/** Operations: what is connected, refused, late and failing, and one button to check everything again. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, messageOf } from "../api.js";
import { confirm } from "../ui/confirm.js";
import { Fault, Field } from "../ui/field.js";
import { toast } from "../ui/toast.js";
import { ago, isChanged, movedText, shownSettings, tiles, type Level, type Summary, type Tile } from "./operations/summary.js";
import "../../style/admin.css";

const EVERY_MS = 10_000;
const SIGNS: Record<Level, string> = { ok: "●", warn: "▲", critical: "■", unknown: "○" };

export function Operations() {
  const [summary, setSummary] = useState<Summary>();
  const [fault, setFault] = useState<string>();
  const [now, setNow] = useState(Date.now());
  const [turn, setTurn] = useState(0);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    const stop = new AbortController();
    let due: ReturnType<typeof setTimeout> | undefined;

    async function load(): Promise<void> {
      try {
        setSummary(await call<Summary>("GET", "/operations/summary", { signal: stop.signal }));
        setFault(undefined);
      } catch (error) {
        if (stop.signal.aborted) return;
        setFault(messageOf(error));
      }
      if (stop.signal.aborted) return;
      setNow(Date.now());
      due = setTimeout(next, EVERY_MS);
    }

    // Nobody looks at a hidden page. It is loaded when it is looked at again.
    function next(): void {
      due = undefined;
      if (document.visibilityState === "visible") void load();
    }
    function seen(): void {
      if (due === undefined) next();
    }
    document.addEventListener("visibilitychange", seen);
    void load();
    return () => {
      stop.abort();
      clearTimeout(due);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [turn]);

  async function act(path: string, done: (answer: Record<string, unknown>) => string): Promise<void> {
    setBusy(true);
    try {
      toast(done((await call<Record<string, unknown> | undefined>("POST", path)) ?? {}));
    } catch (error) {
      toast(messageOf(error));
    }
    setBusy(false);
    setTurn((before) => before + 1);
  }

  async function revalidate(): Promise<void> {
    const agreed = await confirm({
      title: "Check every subscription again?",
      text: "Whoever may not watch any longer is cut. Nobody else notices. It begins within seconds, and reads every connection and subscription.",
      action: "Check all now",
    });
    if (agreed) await act("/operations/full-revalidation", () => "A full revalidation was asked for.");
  }

  async function redrive(queue: string, messages: number): Promise<void> {
    const agreed = await confirm({
      title: `Try ${messages === 1 ? "one message" : `${messages} messages`} again?`,
      text: "They go back to the queue they came from. Remove the cause first: what fails again comes back here.",
      action: "Try again",
    });
    if (!agreed) return;
    const path = `/operations/dead-letters/${encodeURIComponent(queue)}:redrive`;
    await act(path, (answer) => movedText(answer as { moved: number; left: number | null }));
  }

  return (
    <>
      <div class="heading">
        <h2>Operations</h2>
        {summary ? <span class="pill">{summary.stage} · {summary.version}</span> : null}
        <span class="grow" />
        <button type="button" class="primary" disabled={busy} onClick={() => void revalidate()}>
          Revalidate everything
        </button>
      </div>
      <Fault>{fault && summary ? `${fault} What is shown is of ${new Date(summary.at).toLocaleTimeString()}.` : fault}</Fault>
      {summary ? <Content summary={summary} now={now} busy={busy} redrive={redrive} /> : fault ? null : <p class="empty">Loading…</p>}
    </>
  );
}

function Content(props: { summary: Summary; now: number; busy: boolean; redrive: (queue: string, messages: number) => Promise<void> }) {
  const { summary, now, busy, redrive } = props;
  return (
    <>
      <div class="tiles">
        {tiles(summary, now).map((tile) => (
          <TileView key={tile.title} tile={tile} />
        ))}
      </div>
      <UpstreamsTable found={summary.upstreams} />
      <RevalidationText found={summary.fullRevalidation} now={now} />
      <h3>Relay</h3>
      {summary.relay ? (
        <ul class="plain">
          {summary.relay.map(({ partition, state, successor }) => (
            <li key={partition}>
              <State level={state === "overdue" ? "warn" : "ok"}>
                partition {partition + 1}: {RELAY[state]}
                {successor ? ", a successor waits" : ""}
              </State>
            </li>
          ))}
        </ul>
      ) : (
        <Unchecked />
      )}
      <h3>Queues</h3>
      <div class="scroll" tabIndex={0} role="region" aria-label="Queues">
        <table class="list">
          <thead>
            <tr>
              <th scope="col">Queue</th>
              <th scope="col" class="n">
                Waiting
              </th>
              <th scope="col" class="n">
                In work
              </th>
              <th scope="col" class="n">
                Not due yet
              </th>
            </tr>
          </thead>
          <tbody>
            {summary.queues.map(({ name, waiting, inFlight, delayed }) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                {waiting === null ? (
                  <td colSpan={3} class="n">
                    <Unchecked />
                  </td>
                ) : (
                  <>
                    <td class="n">{waiting}</td>
                    <td class="n">{inFlight}</td>
                    <td class="n">{delayed}</td>
                  </>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <h3>Dead letters</h3>
      <p class="note again">Messages that failed as often as their queue allows.</p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Dead letters">
        <table class="list">
          <thead>
            <tr>
              <th scope="col">Of</th>
              <th scope="col" class="n">
                Messages
              </th>
              <th scope="col">Oldest</th>
              <th scope="col">
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {summary.deadLetters.map(({ queue, sources, messages, oldestAt }) => (
              <tr key={queue}>
                <th scope="row">{sources.join(", ")}</th>
                <td class="n">{messages ?? <Unchecked />}</td>
                <td class="note">{oldestAt ? ago(oldestAt, now) : ""}</td>
                <td class="n">
                  {messages ? (
                    <button
                      type="button"
                      class="small"
                      disabled={busy}
                      aria-label={`Try again: the messages of ${sources.join(", ")}`}
                      onClick={() => void redrive(queue, messages)}
                    >
                      Try again
                    </button>
                  ) : null}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <SettingsTable settings={summary.settings} />
    </>
  );
}

const RELAY = { held: "a worker has it", overdue: "its worker did not renew, and has most likely died", free: "nobody has it, because nothing is to be done" };

function TileView({ tile }: { tile: Tile }) {
  return (
    <div class="tile">
      <span class="note">{tile.title}</span>
      <b class={tile.value === undefined || tile.value.length > 8 ? "words" : ""}>{tile.value ?? "not known"}</b>
      <State level={tile.level}>{tile.text}</State>
    </div>
  );
}

function State({ level, children }: { level: Level; children: ComponentChildren }) {
  return (
    <span class={`state ${level}`}>
      <span aria-hidden="true">{SIGNS[level]}</span>
      <span>{children}</span>
    </span>
  );
}

function Unchecked() {
  return <State level="unknown">could not be checked</State>;
}

function UpstreamsTable({ found }: { found: Summary["upstreams"] }) {
  return (
    <>
      <h3>Upstreams that need somebody</h3>
      {found === null ? <Unchecked /> : null}
      {found && !found.failingCount ? <State level="ok">None. {found.connected} connected.</State> : null}
      {found?.failing.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="Failing upstreams">
          <table class="list folds">
            <thead>
              <tr>
                <th scope="col">Source</th>
                <th scope="col">Protocol</th>
                <th scope="col">Last fault</th>
              </tr>
            </thead>
            <tbody>
              {found.failing.map(({ source, protocol, code, text }, index) => (
                <tr key={`${source} ${index}`}>
                  <th scope="row" class="mono">
                    {source}
                  </th>
                  <td>{protocol}</td>
                  <td>
                    <State level={code === "STREAM_AUTH_FAILED" || code === "STREAM_POLICY_BLOCKED" ? "critical" : "warn"}>
                      {text} <span class="note mono">{code}</span>
                    </State>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {found && found.failingCount > found.failing.length ? (
        <p class="note">And {found.failingCount - found.failing.length} more.</p>
      ) : null}
    </>
  );
}

function RevalidationText({ found, now }: { found: Summary["fullRevalidation"]; now: number }) {
  return (
    <>
      <h3>Full revalidation</h3>
      {found === null ? (
        <Unchecked />
      ) : (
        <State level="ok">
          {found.running && found.beganAt ? `Running since ${ago(found.beganAt, now).replace(" ago", "")}.` : ""}
          {!found.running && found.endedAt ? `The last one ended ${ago(found.endedAt, now)}.` : ""}
          {!found.running && !found.endedAt ? "None has ended yet." : ""}
          {found.demanded ? " Another one is asked for." : ""}
        </State>
      )}
    </>
  );
}

function SettingsTable({ settings }: { settings: Summary["settings"] }) {
  const [open, setOpen] = useState(false);
  const [search, setSearch] = useState("");
  const changed = settings.filter(isChanged).length;
  return (
    <details class="settings" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        Settings in effect <span class="note">{changed} of {settings.length} are not at their default</span>
      </summary>
      {open ? (
        <>
          <div class="search">
            <Field label="Search" type="search" value={search} onInput={setSearch} placeholder="Name or value" />
          </div>
          <div class="scroll" tabIndex={0} role="region" aria-label="Settings">
            <table class="list folds">
              <thead>
                <tr>
                  <th scope="col">Setting</th>
                  <th scope="col">Value</th>
                  <th scope="col">Default</th>
                </tr>
              </thead>
              <tbody>
                {shownSettings(settings, search).map((one) => (
                  <tr key={one.variable}>
                    <th scope="row" class="mono">
                      {one.variable}
                    </th>
                    <td class="mono">
                      {one.value} {one.value === "empty" ? "" : one.unit}
                    </td>
                    <td class="note">{isChanged(one) ? one.default : "the same"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      ) : null}
    </details>
  );
}
