/** A server of the browser protocol and of the API, in memory, for tests on a clock of their own. */

import { vi } from "vitest";
import { Dashboard, type Frame, type Options } from "../src/index.js";

/** A call of the API, as it came. */
export interface Call {
  path: string;
  body: Record<string, unknown>;
  authorization: string | undefined;
}

export interface Answer {
  status?: number;
  body: unknown;
}

type Sent = Record<string, unknown> & { type: string; requestId?: string; datasourceIds?: string[] };

/** What the server does with a handshake: answer it, refuse it, or let it hang. */
export type Handshake = "accept" | "refuse" | "hang";

/** One connection, seen from both ends. */
export class Socket {
  static readonly OPEN = 1;
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  onerror: (() => void) | null = null;
  /** What the client sent, in order. Without pings. */
  readonly sent: Sent[] = [];
  pings = 0;
  /** Nothing passes any more, and neither end is told. */
  halfOpen = false;

  constructor(
    readonly url: string,
    readonly server: Server,
  ) {
    server.sockets.push(this);
    const what = server.handshake;
    if (what === "hang") return;
    setTimeout(() => {
      if (this.readyState !== 0) return;
      if (what === "refuse") return this.cut();
      this.readyState = 1;
      this.onopen?.();
    }, server.latencyMs);
  }

  send(text: string): void {
    const message = JSON.parse(text) as Sent;
    if (message.type === "ping") this.pings++;
    else this.sent.push(message);
    if (this.halfOpen) return;
    setTimeout(() => this.server.receive(this, message), this.server.latencyMs);
  }

  close(): void {
    this.readyState = 3;
  }

  /** The server, or the network, ends it. */
  cut(): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.();
  }

  /** The server sends frames: in one batch when there are several. */
  push(...frames: Frame[]): void {
    if (this.readyState !== 1 || this.halfOpen) return;
    const stamped = frames.map((frame) => ({ timestamp: this.server.now(), ...frame }));
    this.onmessage?.({ data: JSON.stringify(stamped.length === 1 ? stamped[0] : { type: "batch", messages: stamped }) });
  }

  get subscribes(): Sent[] {
    return this.sent.filter(({ type }) => type === "subscribe");
  }
}

export const ALLOWED = { state: "allowed", errorCode: null, message: null, retryable: null, retryAfterMs: null };

export class Server {
  readonly sockets: Socket[] = [];
  readonly calls: Call[] = [];
  handshake: Handshake = "accept";
  latencyMs = 10;
  /** The server's clock, less that of the device. */
  aheadMs = 0;
  tokenLifeMs = 300_000;
  minted = 0;
  /** What answers a path, in place of the usual. A function that throws is a network that is lost. */
  answers: Partial<Record<"session" | "history" | "realtime", (call: Call) => Answer>> = {};
  /** The frames that answer a subscribe to a datasource. None: the message is lost. */
  onSubscribe: (id: string, message: Sent) => Frame[] = (id) => [
    { type: "ack", datasourceId: id, ok: true },
    { type: "status", datasourceId: id, status: "connected" },
  ];
  onOther: (message: Sent, socket: Socket) => void = () => undefined;

  now(): string {
    return new Date(Date.now() + this.aheadMs).toISOString();
  }

  in(milliseconds: number): string {
    return new Date(Date.now() + this.aheadMs + milliseconds).toISOString();
  }

  /** The connection that was opened last. */
  get socket(): Socket {
    return this.sockets.at(-1) as Socket;
  }

  count(what: "session" | "history" | "realtime"): number {
    return this.calls.filter(({ path }) => path.includes(`/${what}`)).length;
  }

  receive(socket: Socket, message: Sent): void {
    if (message.type === "ping") return socket.push({ type: "pong" });
    if (message.type !== "subscribe") return this.onOther(message, socket);
    const ids = message.datasourceIds ?? [String(message.datasourceId)];
    const frames = ids.flatMap((id) => this.onSubscribe(id, message));
    for (const frame of frames) if (frame.type === "ack") frame.requestId ??= message.requestId ?? null;
    if (frames.length) socket.push(...frames);
  }

  readonly fetch = async (url: URL | RequestInfo, init: RequestInit = {}): Promise<Response> => {
    const { pathname, search } = new URL(String(url));
    const authorization = (init.headers as Record<string, string> | undefined)?.Authorization;
    const body = init.body ? (JSON.parse(String(init.body)) as Record<string, unknown>) : {};
    const call: Call = { path: pathname + search, body, authorization };
    this.calls.push(call);
    await new Promise((resolve) => setTimeout(resolve, this.latencyMs));
    const what = (["session", "history", "realtime"] as const).find((name) => pathname.endsWith(`/${name}`));
    const { status = 200, body: answer } = (what && this.answers[what])?.(call) ?? this.#usual(what);
    return new Response(JSON.stringify(answer), { status });
  };

  #usual(what: string | undefined): Answer {
    switch (what) {
      case "session":
        return { body: this.session() };
      case "realtime":
        return { body: { connect: ALLOWED, subscribe: ALLOWED } };
      case "history":
        return { body: { points: [] } };
      default:
        return { status: 404, body: { error: { code: "not_found", message: "Nothing here" } } };
    }
  }

  session(): Record<string, string> {
    const token = `token-${++this.minted}`;
    const life = this.tokenLifeMs;
    return { token, expiresAt: this.in(life), refreshAfter: this.in(life * 0.6), serverTime: this.now() };
  }

  dashboard(ids: string[] = ["temp"], options: Partial<Options> = {}): Dashboard {
    const server = this;
    const WebSocket = class {
      constructor(url: string) {
        // The library takes what is constructed for a WebSocket.
        return new Socket(url, server) as unknown as object;
      }
    } as unknown as typeof globalThis.WebSocket;
    return new Dashboard({
      url: "https://live.example.com",
      dashboardId: "dash",
      datasources: ids.map((id) => ({ id })),
      fetch: this.fetch,
      WebSocket,
      ...options,
    });
  }
}

/** Time that only `pass` moves, and chance that is the same in each run. */
export function fakeTime(): void {
  vi.useFakeTimers({ now: Date.parse("2027-01-15T08:00:00.000Z") });
  let state = 1;
  // A linear congruential generator, with the constants of Numerical Recipes.
  vi.spyOn(Math, "random").mockImplementation(() => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32);
}

export function realTime(): void {
  vi.useRealTimers();
  vi.restoreAllMocks();
}

/** Lets time pass, and everything that is due then happen. */
export async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

/** The `seq` of the moment `n`. */
export function seq(n: number): string {
  return `${String(n).padStart(15, "0")}-m`;
}

let counted = 0;

/** A value, newer than those before. */
export function value(payload: number, more: Partial<Frame> = {}): Frame {
  return { type: "data", datasourceId: "temp", payload, seq: seq(++counted), ...more };
}
