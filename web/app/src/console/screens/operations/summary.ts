/** The summary of operations, and what is to be said of it. */

export interface Summary {
  at: string;
  version: string;
  stage: string;
  remoteApi: boolean;
  connections: { count: number; at: string } | null;
  subscriptions: { count: number; more: boolean } | null;
  upstreams: {
    connected: number;
    failing: { protocol: string; source: string; code: string; text: string }[];
    failingCount: number;
    idle: number;
    more: boolean;
  } | null;
  relay: { partition: number; state: "held" | "overdue" | "free"; until: string | null; successor: boolean }[] | null;
  revocations: { newest: number; applied: number; waitingSince: string | null } | null;
  fullRevalidation: { beganAt: string | null; endedAt: string | null; running: boolean; demanded: boolean } | null;
  limiter: { answers: boolean };
  queues: { name: string; waiting: number | null; inFlight: number | null; delayed: number | null }[];
  deadLetters: { queue: string; sources: string[]; messages: number | null; oldestAt: string | null }[];
  settings: { variable: string; value: string; default: string; unit: string }[];
  unchecked: string[];
}

export type Level = "ok" | "warn" | "critical" | "unknown";

export interface Tile {
  title: string;
  /** Undefined: it could not be checked. */
  value: string | undefined;
  level: Level;
  text: string;
}

/** A reader that is behind for so long has stopped: it polls every few seconds. */
const BEHIND_MS = 60_000;

const NUMBER = new Intl.NumberFormat();

export function tiles(summary: Summary, now: number): Tile[] {
  return [connections(summary, now), subscriptions(summary), upstreams(summary), revocations(summary, now), limiter(summary), deadLetters(summary, now)];
}

function connections({ connections: found, revocations: state }: Summary, now: number): Tile {
  const title = "Connections";
  if (found) return { title, value: NUMBER.format(found.count), level: "ok", text: `counted ${ago(found.at, now)}` };
  if (!state) return unchecked(title);
  return { title, value: "–", level: "ok", text: "counted by the next full revalidation" };
}

function subscriptions({ subscriptions: found }: Summary): Tile {
  const title = "Subscriptions";
  if (!found) return unchecked(title);
  return { title, value: `${NUMBER.format(found.count)}${found.more ? "+" : ""}`, level: "ok", text: found.more ? "at least" : "now" };
}

function upstreams({ upstreams: found }: Summary): Tile {
  const title = "Upstreams";
  if (!found) return unchecked(title);
  const text = found.failingCount ? `${found.failingCount} failing` : `none failing, ${found.idle} idle`;
  return { title, value: `${NUMBER.format(found.connected)}${found.more ? "+" : ""}`, level: found.failingCount ? "warn" : "ok", text };
}

function revocations({ revocations: found, remoteApi }: Summary, now: number): Tile {
  const title = "Revocations behind";
  if (!found) return unchecked(title);
  if (remoteApi) return { title, value: "–", level: "ok", text: "the remote API has the feed" };
  const behind = Math.max(0, found.newest - found.applied);
  if (!behind) return { title, value: "0", level: "ok", text: "all are applied" };
  const late = found.waitingSince !== null && now - Date.parse(found.waitingSince) > BEHIND_MS;
  return {
    title,
    value: NUMBER.format(behind),
    level: late ? "critical" : "ok",
    text: found.waitingSince ? `the oldest ${ago(found.waitingSince, now)}` : "being applied",
  };
}

function limiter({ limiter: found, settings }: Summary): Tile {
  const mode = settings.find(({ variable }) => variable === "REALTIME_LIMITER_FAILURE_MODE")?.value ?? "";
  const level = found.answers ? "ok" : "critical";
  return { title: "Limiter", value: found.answers ? "answers" : "does not answer", level, text: `${mode} if it does not` };
}

function deadLetters({ deadLetters: found }: Summary, now: number): Tile {
  const title = "Dead letters";
  const known = found.filter(({ messages }) => messages !== null);
  if (!known.length) return unchecked(title);
  const all = known.reduce((sum, { messages }) => sum + (messages ?? 0), 0);
  const some = known.length < found.length;
  const oldest = known.map(({ oldestAt }) => oldestAt).filter((at) => at !== null).sort()[0];
  const text = [...(oldest ? [`oldest ${ago(oldest, now)}`] : []), ...(some ? ["a queue could not be checked"] : [])].join(", ");
  return { title, value: NUMBER.format(all), level: all ? "warn" : some ? "unknown" : "ok", text: text || "none" };
}

function unchecked(title: string): Tile {
  return { title, value: undefined, level: "unknown", text: "could not be checked" };
}

/** How long ago it was, in the largest unit that fits. */
export function ago(at: string, now: number): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(at)) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}

/** Settings that match what is searched for; those that are not at their default come first. */
export function shownSettings(settings: Summary["settings"], search: string): Summary["settings"] {
  const wanted = search.trim().toLowerCase();
  const found = settings.filter(({ variable, value }) => `${variable} ${value}`.toLowerCase().includes(wanted));
  return [...found.filter(isChanged), ...found.filter((one) => !isChanged(one))];
}

export function isChanged({ value, default: usual }: Summary["settings"][number]): boolean {
  return value !== usual;
}

/** What became of messages that were to be tried again. */
export function movedText({ moved, left }: { moved: number; left: number | null }): string {
  const done = moved ? `${moved} went back.` : "None went back.";
  if (left === null) return `${done} How many are left could not be checked.`;
  if (!left) return done;
  return moved ? `${done} ${left} are left: try again for the rest.` : `${done} It is not known where the ${left} came from.`;
}
