/** A datasource: where it comes from, what is kept of it, and its first messages before it is saved. */

import { useEffect, useState } from "preact/hooks";
import type { BoardDocument, DatasourceEntry } from "../../board/document.js";
import { at } from "../../widgets/binding.js";
import { formatValue } from "../../widgets/format.js";
import { messageOf } from "../api.js";
import { Dialog } from "../ui/dialog.js";
import { Check, Choice, Field } from "../ui/field.js";
import { freshId } from "./draft.js";
import { checkTopic, preview, type Preview, type TopicCheck, type UsableProfiles } from "./profiles.js";
import { Tree } from "./tree.js";

interface Props {
  dashboardId: string;
  document: BoardDocument;
  profiles: UsableProfiles | undefined;
  /** Undefined: a new one. */
  datasource: DatasourceEntry | undefined;
  onUse: (datasource: DatasourceEntry, path: string | undefined) => void;
  onClose: () => void;
}

type Kind = "mqtt" | "sse" | "websocket";

const KINDS = [
  ["mqtt", "MQTT: devices and brokers"],
  ["sse", "Server-sent events"],
  ["websocket", "WebSocket"],
] as const;
const HISTORIES = [
  ["", "None: a chart begins when it is opened"],
  ["900/1000", "15 minutes, a point each second"],
  ["3600/5000", "1 hour, a point each 5 seconds"],
  ["7200/10000", "2 hours, a point each 10 seconds"],
] as const;
/** A person types; the server is asked when they pause for so long. */
const PAUSE_MS = 400;

export function DatasourceDialog({ dashboardId, document, profiles, datasource, onUse, onClose }: Props) {
  const before = datasource?.settings ?? {};
  const text = (name: string): string => (typeof before[name] === "string" ? (before[name] as string) : "");
  const [kind, setKind] = useState<Kind>((datasource?.type as Kind) ?? "mqtt");
  const [title, setTitle] = useState(datasource?.title ?? "");
  const [broker, setBroker] = useState(text("brokerProfileId"));
  const [topic, setTopic] = useState(text("topic"));
  const [parser, setParser] = useState<"json" | "text">(before.parser === "text" ? "text" : "json");
  const [url, setUrl] = useState(text("url"));
  const [credential, setCredential] = useState(text("credentialProfileId"));
  const [stale, setStale] = useState(before.staleAfterSeconds === undefined ? "" : String(before.staleAfterSeconds));
  const [history, setHistory] = useState(before.history ? `${before.history.seconds}/${before.history.everyMs}` : "");
  const [enabled, setEnabled] = useState(datasource?.enabled !== false);
  const [path, setPath] = useState<string>();

  useEffect(() => {
    const first = profiles?.brokers[0];
    if (!broker && first) setBroker(first.id);
  }, [profiles]);

  const chosen = profiles?.brokers.find(({ id }) => id === broker);
  const secret = profiles?.credentials.find(({ id }) => id === credential);
  const settings = settingsOf();
  const complete = kind === "mqtt" ? Boolean(broker && topic.trim()) : Boolean(url.trim());

  function settingsOf(): DatasourceEntry["settings"] {
    const {
      brokerProfileId: _b,
      topic: _t,
      parser: _p,
      url: _u,
      credentialProfileId: _c,
      staleAfterSeconds: _s,
      history: _h,
      ...rest
    } = before;
    const own =
      kind === "mqtt"
        ? { brokerProfileId: broker, topic: topic.trim(), parser }
        : { url: url.trim(), parser, ...(credential ? { credentialProfileId: credential } : {}) };
    const [seconds, everyMs] = history.split("/").map(Number);
    return {
      ...(datasource?.type === kind ? rest : {}),
      ...own,
      ...(Number(stale) > 0 ? { staleAfterSeconds: Number(stale) } : {}),
      ...(seconds && everyMs ? { history: { seconds, everyMs } } : {}),
    };
  }

  function use(): void {
    const name = title.trim() || (kind === "mqtt" ? topic.trim() : url.trim());
    const taken = document.datasources.map(({ id }) => id);
    const id = datasource?.id ?? freshId(name, taken, "datasource");
    const { enabled: _, ...rest } = datasource ?? {};
    onUse({ ...rest, id, title: name, type: kind, ...(enabled ? {} : { enabled: false }), settings: settings ?? {} }, path);
  }

  return (
    <Dialog
      title={datasource ? `Datasource: ${datasource.title || datasource.id}` : "New datasource"}
      wide
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" class="primary" disabled={!complete} onClick={use}>
            Use this datasource
          </button>
        </>
      }
    >
      <div class="two">
        <div>
          <Field label="Name" value={title} onInput={setTitle} placeholder="Boiler telemetry" />
          <Choice label="Kind" value={kind} onChange={setKind} choices={KINDS} />
          {kind === "mqtt" ? (
            <>
              <Choice
                label="Broker profile"
                value={broker}
                onChange={setBroker}
                choices={(profiles?.brokers ?? []).map(({ id, name }) => [id, name] as const)}
                hint={
                  profiles && !profiles.brokers.length
                    ? "There is no broker profile yet. An administrator makes one."
                    : chosen && !chosen.allowPublicUse
                      ? "Public use is off: only members of the dashboard will see this datasource."
                      : undefined
                }
              />
              <Topic dashboardId={dashboardId} broker={broker} topic={topic} onTopic={setTopic} allowlist={chosen?.topicAllowlist ?? []} />
            </>
          ) : (
            <>
              <Field
                label="Address"
                type="url"
                mono
                value={url}
                onInput={setUrl}
                placeholder={kind === "sse" ? "https://api.example.com/stream" : "wss://api.example.com/live"}
              />
              <Choice
                label="Credential profile"
                value={credential}
                onChange={setCredential}
                choices={[
                  ["", "None"],
                  ...(profiles?.credentials ?? [])
                    .filter(({ destinations }) => destinations.length)
                    .map(({ id, name }) => [id, name] as const),
                ]}
                hint={secret && !secret.allowPublicUse ? "Public use is off: only members will see this datasource." : undefined}
              />
            </>
          )}
          <Choice
            label="Payload"
            value={parser}
            onChange={setParser}
            choices={[
              ["json", "JSON"],
              ["text", "Text"],
            ]}
          />
          <Field
            label="Show as stale after, in seconds"
            type="number"
            min={1}
            value={stale}
            onInput={setStale}
            placeholder="never"
            hint="A value older than this is shown grey, and says so."
          />
          <Choice
            label="History on opening"
            value={history}
            onChange={setHistory}
            choices={
              HISTORIES.some(([value]) => value === history) ? HISTORIES : [...HISTORIES, [history, `As it is: ${history}`] as const]
            }
          />
          {datasource ? <Check label="Switched on" value={enabled} onChange={setEnabled} /> : null}
        </div>
        <Messages
          dashboardId={dashboardId}
          type={kind}
          settings={settings}
          complete={complete}
          path={path}
          onPath={setPath}
        />
      </div>
    </Dialog>
  );
}

function Topic(props: {
  dashboardId: string;
  broker: string;
  topic: string;
  onTopic: (topic: string) => void;
  allowlist: readonly string[];
}) {
  const { dashboardId, broker, topic, onTopic, allowlist } = props;
  const [check, setCheck] = useState<TopicCheck>();
  useEffect(() => {
    setCheck(undefined);
    if (!broker || !topic.trim()) return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      checkTopic(dashboardId, broker, topic.trim(), stop.signal).then(setCheck, () => undefined);
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [dashboardId, broker, topic]);
  return (
    <>
      <Field
        label="Topic"
        mono
        value={topic}
        onInput={onTopic}
        placeholder="plant/3/boiler/+/telemetry"
        list={allowlist}
        fault={check?.problem ?? undefined}
        hint={allowlist.length ? `The broker allows ${allowlist.join(", ")}.` : undefined}
      />
      {check && check.problem === null ? (
        <p class="hint ok" role="status">
          <span aria-hidden="true">●</span> Allowed by {check.coveredBy}.
          {check.wildcard ? " Values are kept for each topic." : ""}
        </p>
      ) : null}
    </>
  );
}

function Messages(props: {
  dashboardId: string;
  type: string;
  settings: DatasourceEntry["settings"];
  complete: boolean;
  path: string | undefined;
  onPath: (path: string) => void;
}) {
  const { dashboardId, type, settings, complete, path, onPath } = props;
  const [state, setState] = useState<"idle" | "asking" | "done">("idle");
  const [got, setGot] = useState<Preview>();
  const [fault, setFault] = useState<string>();
  const [stop, setStop] = useState<AbortController>();
  const key = JSON.stringify([type, settings]);
  useEffect(() => () => stop?.abort(), [stop]);
  useEffect(() => {
    setGot(undefined);
    setFault(undefined);
    setState("idle");
  }, [key]);

  async function ask(): Promise<void> {
    const asking = new AbortController();
    setStop(asking);
    setState("asking");
    setFault(undefined);
    try {
      setGot(await preview(dashboardId, { type, settings }, asking.signal));
    } catch (error) {
      if (asking.signal.aborted) return;
      setFault(messageOf(error));
    }
    setState("done");
  }

  const message = got?.messages.at(-1);
  return (
    <div class="preview">
      <p class="row">
        <b>Preview</b>
        <span class="grow" />
        <button type="button" disabled={!complete || state === "asking"} onClick={() => void ask()}>
          {state === "asking" ? "Waiting for messages…" : got ? "Ask again" : "Show messages"}
        </button>
      </p>
      {state === "idle" ? <p class="note">See the first messages before you save. It takes ten seconds at most.</p> : null}
      {fault || got?.fault ? (
        <p class="fault" role="alert">
          <span aria-hidden="true">■</span> {fault ?? got?.fault?.message}
        </p>
      ) : null}
      {got && !got.messages.length && !got.fault ? (
        <p class="note">No message came within ten seconds. The source may send seldom, or the topic is another one.</p>
      ) : null}
      {message ? (
        <>
          <p class="note">
            {got?.messages.length === 1 ? "One message" : `${got?.messages.length} messages`}
            {message.topic ? `, the last from ${message.topic}` : ""}. Click a value to use its path.
          </p>
          <Tree value={message.payload} chosen={path ?? "\0"} onChoose={onPath} />
          {path === undefined ? null : (
            <p class="reads">
              <span class="note">
                <code>{path || "the payload itself"}</code> reads as
              </span>
              <span class="number">{formatValue(at(message.payload, path))}</span>
            </p>
          )}
        </>
      ) : null}
    </div>
  );
}
