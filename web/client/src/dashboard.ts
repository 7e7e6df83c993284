/** A dashboard's datasources over one WebSocket. README.md has the table of states. */

import { pause } from "./backoff.js";
import { Clock } from "./clock.js";
import { Connection } from "./connection.js";
import { Datasource } from "./datasource.js";
import { Refused } from "./errors.js";
import type { Frame, Session } from "./frames.js";
import { mint, readHistory, wouldRefuse, type Source } from "./session.js";

export type DashboardState = "idle" | "connecting" | "live" | "waiting" | "offline" | "ended";

export interface WatchedDatasource {
  id: string;
  /** Its newest value is shown as stale after so many seconds. Never, when left out. */
  staleAfterSeconds?: number | undefined;
}

export interface Options extends Source {
  datasources: readonly WatchedDatasource[];
  /** Where the WebSocket is. Default: `/gateway/realtime?batch=1` at `url`. */
  socketUrl?: string;
  /**
   * Get the session token for the dashboard in another way. It throws `Refused`, or anything for a fault. The token
   * before may have expired.
   */
  session?: (currentToken: string | undefined) => Promise<Session>;
  /** For gateways that know only tokens for one datasource: get one. */
  datasourceSession?: (datasourceId: string) => Promise<Session>;
  /** Values kept in memory for each datasource and topic. Default 2,000, as many as a history has. */
  capacity?: number;
  /**
   * When the next connection takes over, in milliseconds. Default 100 minutes: the platform ends any at two hours. With
   * `datasourceSession` none does: without `seq` the values of two connections could not be told apart.
   */
  renewAfterMs?: number;
  WebSocket?: typeof WebSocket;
}

interface Token {
  session?: Session;
  /** By the server's clock. */
  refreshAt: number;
  /** It is not asked for again before, whatever the server's clock is. By the clock of deadlines. */
  soonest: number;
  failures: number;
  /** The server refused it. It still says which viewer asks for the next one. */
  refused?: boolean;
  asking?: Promise<boolean> | undefined;
}

const TICK_MS = 500;
/** Two ticks so far apart mean that the device slept. Browsers let a hidden page tick once a minute. */
const SLEPT_MS = 75_000;
/** So does a monotonic clock that is behind the other one by so much: it stood still. */
const STOOD_MS = 5_000;
const ACK_MS = 15_000;
/** How long the next connection may take until all is acked on it. */
const SWAP_MS = 30_000;
/** How long the old connection is kept beside the next one: what is sent now may not know of a new subscription yet. */
const LINGER_MS = 5_000;
/** A connection on which something was watched for so long was a good one: its end counts as the first failure. */
const STABLE_MS = 10_000;
const RENEW_AFTER_MS = 100 * 60_000;
/** Half of the shortest life that a token may have. A clock that is wrong asks no more often. */
const SOONEST_MS = 30_000;
/** How long before its end a token is refreshed that does not say when. */
const EARLY_MS = 60_000;
/** Failures after which a pause is as long as it gets. */
const MANY = 5;
/** Datasources of one `subscribe`: what a connection may have by default. */
const CHUNK = 50;
/** The key of the token for the whole dashboard. */
const WHOLE = "";

export class Dashboard {
  state: DashboardState = "idle";
  /** Why it waits or has ended: a code of the API or the protocol. */
  reason: string | undefined;
  /** The same, for people. */
  message: string | undefined;
  /** In how many milliseconds the next try is due. Undefined when it is not waiting. */
  get retryInMs(): number | undefined {
    return this.state === "waiting" ? Math.max(0, this.#retryAt - this.#now()) : undefined;
  }
  /** The revision that the document has now, as far as was told. Ask for the document when it grows. */
  revision: number | undefined;
  readonly datasources: ReadonlyMap<string, Datasource>;

  readonly #options: Options;
  /** Each datasource has a token of its own: from here. */
  readonly #each: Options["datasourceSession"];
  readonly #all: readonly Datasource[];
  readonly #clock = new Clock(() => performance.now());
  readonly #now = (): number => performance.now();
  readonly #listeners = new Set<(changed: ReadonlySet<string>) => void>();
  readonly #tokens = new Map<string, Token>();
  #connection: Connection | undefined;
  /** The one that takes over when so many as `#awaited` are acked on it. */
  #next: Connection | undefined;
  #awaited = 0;
  #old: Connection | undefined;
  #renewAt = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #requests = 0;
  #chunk = CHUNK;
  #failures = 0;
  #retryAt = 0;
  /** When the first subscription of the connection was acked. Zero before. */
  #ackedAt = 0;
  #ticked = 0;
  #date = 0;
  /** One draw for all that a message subscribes to, so that what was refused together comes back in one message. */
  #drawn = 0;
  #changed: Set<string> | undefined;

  constructor(options: Options) {
    this.#options = options;
    this.#each = options.datasourceSession;
    this.#all = options.datasources.map(
      ({ id, staleAfterSeconds = Number.POSITIVE_INFINITY }) =>
        new Datasource(id, staleAfterSeconds * 1_000, options.capacity ?? 2_000),
    );
    this.datasources = new Map(this.#all.map((datasource) => [datasource.id, datasource]));
  }

  /** The server's time now, in milliseconds since 1970. The age of a value is this, less its `at`. */
  get serverTime(): number {
    return this.#clock.now();
  }

  datasource(id: string): Datasource | undefined {
    return this.datasources.get(id);
  }

  /**
   * Reads the newest points of a datasource's history, of one topic when its filter has a wildcard, and merges them
   * with its values. Returns whether there are any. Throws `Refused`: `no_history` when it keeps none.
   */
  async history(id: string, topic?: string): Promise<boolean> {
    const datasource = this.datasources.get(id);
    if (!datasource || !(await this.#token(this.#key(datasource)))) return false;
    const { series } = datasource;
    const points = await readHistory(this.#options, this.#held(datasource), id, topic);
    if (series !== datasource.series) return false; // They are of the source before.
    datasource.of(topic).merge(points);
    this.#tell(id);
    return points.length > 0;
  }

  /**
   * Calls `listener` with the ids of the datasources that changed, once in a frame of the screen at most. The set is
   * empty when only the dashboard changed. Returns what ends it.
   */
  subscribe(listener: (changed: ReadonlySet<string>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begins to watch, or begins anew after it ended. */
  start(): void {
    if (this.state !== "idle" && this.state !== "ended") return;
    this.#failures = 0;
    this.#date = Date.now();
    this.#ticked = this.#now();
    this.#revive();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#listen("addEventListener");
    void this.#connect();
  }

  /** Stops watching. */
  stop(): void {
    this.#rest("idle");
  }

  #rest(state: "idle" | "ended", reason?: string, message?: string): void {
    clearInterval(this.#timer);
    this.#listen("removeEventListener");
    this.#drop();
    this.#tokens.clear();
    this.#enter(state, reason, message);
  }

  #listen(how: "addEventListener" | "removeEventListener"): void {
    globalThis[how]?.("online", this.#wake);
    globalThis[how]?.("offline", this.#offline);
    globalThis[how]?.("pageshow", this.#wake);
    globalThis.document?.[how]("visibilitychange", this.#wake);
  }

  #drop(): void {
    for (const connection of [this.#connection, this.#next, this.#old]) connection?.drop();
    this.#connection = this.#next = undefined;
    for (const datasource of this.#all) {
      // What waits for its time waits on. What waits for an ack gets none.
      if (datasource.pending !== undefined) datasource.retryAt = undefined;
      datasource.status = datasource.pending = undefined;
    }
  }

  #enter(state: DashboardState, reason?: string, message?: string): void {
    this.state = state;
    this.reason = reason;
    this.message = message;
    this.#settle();
    this.#tell();
  }

  // --- the connection -----------------------------------------------------------------------------------------

  #open(): Connection {
    const { url, socketUrl, WebSocket: Socket } = this.#options;
    const address = new URL(socketUrl ?? "/gateway/realtime?batch=1", url).href.replace("http", "ws");
    const connection: Connection = new Connection(
      address,
      {
        open: () => this.#opened(connection),
        frame: (frame) => this.#frame(frame, connection),
        close: (opened) => void this.#closed(connection, opened),
      },
      this.#now,
      Socket,
    );
    return connection;
  }

  async #connect(): Promise<void> {
    this.#drop();
    this.#enter("connecting");
    this.#ackedAt = 0;
    // The token and the connection are got at the same time. After a failure the token comes first: without it a
    // connection is of no use, and while its endpoint is down nobody should open one again and again.
    if (this.#failures && !this.#each && !(await this.#token(WHOLE))) return;
    if (this.state === "connecting") this.#connection ??= this.#open();
  }

  #opened(connection: Connection): void {
    const now = this.#now();
    this.#renewAt = now + (this.#options.renewAfterMs ?? RENEW_AFTER_MS);
    const next = connection === this.#next;
    const wanted = this.#active().filter(({ retryAt = 0 }) => next || retryAt <= now);
    if (next) this.#awaited = wanted.length;
    else for (const datasource of this.#active()) datasource.renew();
    this.#subscribe(wanted, connection);
  }

  async #closed(connection: Connection, opened: boolean): Promise<void> {
    if (connection === this.#next) {
      this.#next = undefined;
      this.#renewAt = this.#now() + pause(MANY, SWAP_MS);
    }
    if (connection !== this.#connection) return;
    if (this.#ackedAt && this.#now() - this.#ackedAt > STABLE_MS) this.#failures = 0;
    this.#wait(0, "connection_lost", "Connection lost");
    if (opened || this.#each) return;
    // A browser does not say why a handshake was refused. This does, and costs nothing.
    const due = this.#retryAt;
    const verdict = (await wouldRefuse(this.#options).catch(() => undefined))?.connect;
    if (this.retryInMs === undefined || due !== this.#retryAt || !verdict || verdict.state === "allowed") return;
    if (verdict.retryable === false) return this.#end(this.#active(), verdict.errorCode, verdict.message);
    this.#failures--;
    this.#wait(verdict.retryAfterMs ?? undefined, verdict.errorCode, verdict.message);
  }

  #wait(retryAfterMs?: number, reason?: string, message?: string): void {
    this.#drop();
    // When all of them have to wait, a connection would watch nothing.
    const soonest = Math.min(...this.#active().map(({ retryAt = 0 }) => retryAt));
    this.#retryAt = Math.max(soonest, this.#now() + pause(this.#failures++, retryAfterMs));
    this.#enter(globalThis.navigator?.onLine === false ? "offline" : "waiting", reason, message);
  }

  readonly #offline = (): void => this.#wait(0, "offline", "Device offline");

  readonly #wake = (): void => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.state === "offline") void this.#connect();
    this.#connection?.ping();
    this.#tick();
  };

  #tick(): void {
    const now = this.#now();
    const passed = Date.now() - this.#date;
    const stood = passed - (now - this.#ticked);
    this.#date += passed;
    this.#ticked = now;
    if (stood > STOOD_MS) {
      this.#clock.skip(stood);
      this.#retryAt -= stood;
    }
    if (this.state === "waiting" || this.state === "offline") {
      // A device may be wrong about being offline.
      if (now >= this.#retryAt) void this.#connect();
    } else if (passed > SLEPT_MS || stood > STOOD_MS) {
      // Nothing says whether the connection outlived it. Finding out takes longer than another one.
      for (const token of this.#tokens.values()) token.refreshAt = token.soonest = 0;
      void this.#connect();
    } else {
      this.#connection?.tick();
      this.#next?.tick();
      if (this.#next && now - this.#next.openedAt > SWAP_MS) this.#next.close();
      if (this.#connection?.opened) this.#work(this.#connection, now);
    }
    this.#settle();
  }

  /** What is due on a connection that stands. */
  #work(connection: Connection, now: number): void {
    if (!this.#next && now > this.#renewAt && this.state === "live" && !this.#each)
      this.#next = this.#open();
    const due = this.#active().filter((datasource) => {
      const token = this.#tokens.get(this.#key(datasource));
      if (datasource.retryAt !== undefined) return now >= datasource.retryAt;
      return token?.session && !token.asking && this.#due(token);
    });
    if (due.length) this.#subscribe(due, connection);
  }

  #settle(all = this.#all): void {
    for (const datasource of all)
      if (datasource.settle(this.serverTime, this.state === "live")) this.#tell(datasource.id);
  }

  // --- tokens -------------------------------------------------------------------------------------------------

  #key({ id }: Datasource): string {
    return this.#each ? id : WHOLE;
  }

  /** Whether a token is held that is good to subscribe with now. Gets one when none is, or when it is time. */
  async #token(key: string): Promise<boolean> {
    let token = this.#tokens.get(key);
    if (!token) this.#tokens.set(key, (token = { refreshAt: 0, soonest: 0, failures: 0 }));
    if (token.session && !this.#due(token)) return true;
    token.asking ??= this.#ask(key, token).finally(() => (token.asking = undefined));
    return token.asking;
  }

  #due({ soonest, refreshAt }: Token): boolean {
    return this.#now() >= soonest && this.serverTime >= refreshAt;
  }

  async #ask(key: string, token: Token): Promise<boolean> {
    const current = token.session;
    try {
      const made = await (this.#each?.(key) ?? this.#options.session?.(current?.token) ?? mint(this.#options, current?.token));
      if (this.#tokens.get(key) !== token) return false;
      this.#clock.observe(made.serverTime);
      const refreshAt = Date.parse(made.refreshAfter as string) || Date.parse(made.expiresAt) - EARLY_MS;
      const soonest = this.#now() + SOONEST_MS;
      Object.assign(token, { session: made, refreshAt, soonest, failures: 0, refused: false });
      return true;
    } catch (error) {
      if (this.#tokens.get(key) !== token) return false;
      const { code, message, retryable, retryAfterMs } =
        error instanceof Refused ? error : new Refused("session_failed", String(error), true);
      const wait = pause(token.failures++, retryAfterMs);
      const using = this.#active().filter((datasource) => this.#key(datasource) === key);
      if (!retryable) this.#end(using, code, message);
      else if (current && !token.refused && this.serverTime < Date.parse(current.expiresAt)) {
        token.soonest = this.#now() + wait; // The old one is still good.
        return true;
      } else if (this.state === "connecting" && key === WHOLE) this.#wait(retryAfterMs, code, message);
      else for (const datasource of using) this.#retry(datasource, wait, code, message);
      return false;
    }
  }

  #held(datasource: Datasource): string | undefined {
    return this.#tokens.get(this.#key(datasource))?.session?.token;
  }

  /** The token that a datasource was subscribed to with is of no use. There may be a newer one, or it is on its way. */
  #forgetToken(datasource: Datasource): void {
    if (datasource.pending === undefined && this.#held(datasource) === datasource.token)
      Object.assign(this.#tokens.get(this.#key(datasource)) as Token, { refreshAt: 0, soonest: 0, refused: true });
  }

  // --- subscriptions ------------------------------------------------------------------------------------------

  #active(): Datasource[] {
    return this.#all.filter(({ state }) => state !== "ended");
  }

  #subscribe(all: readonly Datasource[], connection: Connection): void {
    const pending = String(++this.#requests);
    this.#drawn = Math.random();
    // Without an ack it is sent again. What the next connection is without, the old one still has.
    if (connection !== this.#next)
      for (const datasource of all) Object.assign(datasource, { pending, retryAt: this.#now() + ACK_MS });
    for (const key of new Set(all.map((datasource) => this.#key(datasource))))
      void this.#send(key, all, pending, connection);
  }

  async #send(key: string, all: readonly Datasource[], requestId: string, connection: Connection): Promise<void> {
    if (!(await this.#token(key)) || (connection !== this.#connection && connection !== this.#next)) return;
    const next = connection === this.#next;
    const wanted = this.#active().filter(
      (one) => all.includes(one) && this.#key(one) === key && (next || one.pending === requestId),
    );
    for (let begin = 0; begin < wanted.length; begin += this.#chunk) {
      let sessionToken: string | undefined;
      const datasourceIds: string[] = [];
      const since: Record<string, string> = {};
      for (const datasource of wanted.slice(begin, begin + this.#chunk)) {
        const { id, seq } = datasource;
        sessionToken = datasource.token = this.#held(datasource);
        datasourceIds.push(id);
        // A refresh ignores it. The next connection takes over without a gap.
        if (seq && !next) since[id] = seq;
      }
      const { dashboardId } = this.#options;
      const which = key === WHOLE ? { datasourceIds, since } : { datasourceId: key, since: since[key] };
      connection.send({ type: "subscribe", requestId, dashboardId, sessionToken, ...which });
    }
  }

  #pause(datasource: Datasource, retryAfterMs?: number): number {
    return pause(datasource.failures++, retryAfterMs, this.#drawn);
  }

  #retry(datasource: Datasource, waitMs: number, reason?: string, message?: string): void {
    const retryAt = this.#now() + waitMs;
    Object.assign(datasource, { retryAt, pending: undefined, failed: true, reason, message });
    this.#tell(datasource.id);
  }

  /** These are over for good, and with the last one the dashboard is. */
  #end(all: readonly Datasource[], reason?: string, message?: string): void {
    for (const datasource of all) {
      Object.assign(datasource, { state: "ended", reason, message, retryAt: undefined, status: undefined });
      this.#tell(datasource.id);
    }
    if (!this.#active().length) this.#rest("ended", reason, message);
  }

  /** It was refused for good. Whether that is so is asked once, over HTTP; without that answer it stays. */
  async #refused(datasource: Datasource, reason?: string, message?: string): Promise<void> {
    const token = this.#held(datasource);
    const ask = !datasource.asked && !this.#each && token;
    // One answer is for all that are refused together.
    for (const one of this.#all) one.asked = true;
    this.#end([datasource], reason, message);
    if (!ask) return;
    const verdicts = await wouldRefuse(this.#options, token).catch(() => undefined);
    if (verdicts?.subscribe?.state !== "allowed" || this.state === "idle") return;
    if (this.state === "ended") return this.start();
    this.#revive(this.#now() + pause(0));
  }

  #revive(retryAt?: number): void {
    const anew = { state: "connecting", reason: undefined, message: undefined, failures: 0, failed: false, retryAt };
    for (const datasource of this.#all) if (datasource.state === "ended") Object.assign(datasource, anew);
  }

  // --- frames -------------------------------------------------------------------------------------------------

  #frame(frame: Frame, connection: Connection): void {
    const { type, datasourceId } = frame;
    if (connection === this.#old && type !== "data") return;
    if (type === "pong" || type === "ack") this.#clock.observe(frame.timestamp);
    if (type === "document") {
      this.revision = Math.max(this.revision ?? 0, frame.revision ?? 0);
      return this.#tell();
    }
    if (datasourceId == null) {
      // The server closes the connection, too.
      if (frame.reason === "limit") this.#wait(frame.retryAfterMs, frame.reason, frame.message);
      // A message was refused as a whole: one by one may do.
      if (type === "ack" && !frame.ok) {
        const alone = this.#chunk < 2;
        this.#chunk = 1;
        for (const one of this.#active()) {
          if (one.pending !== frame.requestId) continue;
          if (alone) this.#ack(one, frame, connection);
          else one.retryAt = 0;
        }
      }
      return;
    }
    const datasource = this.datasources.get(datasourceId);
    if (!datasource || datasource.state === "ended") return;
    // What was on its way when the subscription ended is not shown.
    if (!datasource.token && type !== "error") return;
    switch (type) {
      case "ack":
        if (frame.requestId === datasource.pending || connection === this.#next)
          this.#ack(datasource, frame, connection);
        break;
      case "data":
        if (this.#each) datasource.failures = 0;
        if (datasource.of(frame.topic).take(frame, this.serverTime)) this.#tell(datasource.id);
        break;
      case "history":
        datasource.of(frame.topic).merge(frame.points ?? []);
        if (frame.end && frame.recovered) for (const series of datasource.series.values()) series.recovered();
        this.#tell(datasource.id);
        break;
      case "status":
        this.#status(datasource, frame);
        break;
      case "error":
        this.#error(datasource, frame);
    }
    this.#settle([datasource]);
  }

  #ack(datasource: Datasource, frame: Frame, connection: Connection): void {
    // Another kind of gateway does not say whether it is for good. Then it is tried again, more and more slowly.
    const { ok, errorCode, message, retryable = true, retryAfterMs } = frame;
    const next = connection === this.#next;
    // The old connection serves on, and the next one is tried again later.
    if (next && !ok && retryable) return connection.close();
    datasource.pending = datasource.retryAt = undefined;
    if (this.state === "connecting") this.#enter("live");
    if (ok) {
      this.#ackedAt ||= this.#now();
      // Another kind of gateway says so before it asks the upstream.
      if (!this.#each) datasource.failures = 0;
      if (datasource.failed) datasource.reason = datasource.message = undefined;
      datasource.asked = datasource.failed = false;
    } else if (!retryable) void this.#refused(datasource, errorCode, message);
    else {
      const again = frame.retryable && retryAfterMs === undefined;
      if (again || errorCode === "STREAM_AUTH_FAILED") this.#forgetToken(datasource);
      const atOnce = again && !datasource.failures;
      const wait = this.#pause(datasource, retryAfterMs);
      this.#retry(datasource, atOnce ? 0 : wait, errorCode, message);
    }
    if (next) {
      if (--this.#awaited || this.#next !== connection) return;
      const old = (this.#old = this.#connection);
      setTimeout(() => old?.drop(), LINGER_MS);
      this.#connection = connection;
      this.#next = undefined;
    }
  }

  #status(datasource: Datasource, { status, reason, errorCode, message }: Frame): void {
    if (reason) return; // What ended is told by `error`.
    // Another kind of gateway does not come back by itself.
    if (status === "disconnected" && this.#each) return this.#again(datasource);
    Object.assign(datasource, { status, reason: errorCode, message });
    this.#tell(datasource.id);
  }

  /** Ends what is left of a subscription there, and begins anew after a pause. */
  #again(datasource: Datasource, reason = datasource.reason, message = datasource.message): void {
    const { id: datasourceId, token } = datasource;
    if (!token) return; // It was done already.
    this.#connection?.send({ type: "unsubscribe", requestId: String(++this.#requests), datasourceId });
    this.#lost(datasource, this.#pause(datasource, 1_000), reason, message);
  }

  #error(datasource: Datasource, { reason, retryable, errorCode, message, retryAfterMs }: Frame): void {
    if (reason) {
      if (!retryable) return void this.#refused(datasource, reason, message);
      datasource.renew();
      if (reason === "changed") datasource.series = new Map();
      this.#forgetToken(datasource);
      this.#lost(datasource, reason === "expired" ? 0 : this.#pause(datasource, retryAfterMs), reason, message);
    } else if (errorCode === "STREAM_AUTH_FAILED" && this.#each) {
      this.#forgetToken(datasource);
      this.#again(datasource, errorCode, message);
    }
    // Else the subscription stays, and `status` follows.
  }

  #lost(datasource: Datasource, waitMs: number, reason?: string, message?: string): void {
    datasource.status = datasource.token = undefined;
    this.#retry(datasource, waitMs, reason, message);
  }

  // --- telling the page ---------------------------------------------------------------------------------------

  #tell(id?: string): void {
    if (!this.#changed) {
      this.#changed = new Set();
      const flush = (): void => {
        const changed = this.#changed as Set<string>;
        this.#changed = undefined;
        for (const listener of this.#listeners) listener(changed);
      };
      // A hidden page draws no frames.
      const later = globalThis.document?.visibilityState === "visible" ? requestAnimationFrame : setTimeout;
      (later as typeof setTimeout)(flush, 16);
    }
    if (id !== undefined) this.#changed.add(id);
  }
}
