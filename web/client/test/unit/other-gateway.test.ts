/** Against a gateway that speaks the contract of the Freeboard dashboard: a token for each datasource, and no `seq`. */

import { afterEach, beforeEach, expect, test } from "vitest";
import { type Dashboard, type Frame, Refused } from "../../src/index.js";
import { fakeTime, pass, realTime, Server, type Socket } from "../double.js";

const TOKEN_LIFE_MS = 300_000;

/** One subscription of a connection. A broken upstream stays registered, as it does there. */
interface Subscription {
  token: string;
  expiresAt: number;
  broken: boolean;
}

/** A double that is written from the contract: what is sent, in which order, and when a subscription ends. */
class Gateway extends Server {
  readonly held = new Map<Socket, Map<string, Subscription>>();
  readonly mintedFor: string[] = [];
  /** What the upstreams of new subscriptions do. */
  upstream: "up" | "broken" = "up";
  mintFails: Error | undefined;

  readonly mint = async (datasourceId: string) => {
    this.mintedFor.push(datasourceId);
    await new Promise((resolve) => setTimeout(resolve, this.latencyMs));
    if (this.mintFails) throw this.mintFails;
    const end = Date.now() + this.aheadMs + TOKEN_LIFE_MS;
    return { token: `${datasourceId}|${end}`, expiresAt: new Date(end).toISOString() };
  };

  override receive(socket: Socket, message: Record<string, unknown> & { type: string; requestId?: string }): void {
    const id = String(message.datasourceId);
    const requestId = message.requestId ?? null;
    const here = this.held.get(socket) ?? new Map<string, Subscription>();
    this.held.set(socket, here);
    if (message.type === "ping") return this.each(socket, { type: "pong", requestId });
    if (message.type === "unsubscribe") {
      if (here.delete(id)) this.each(socket, ...this.status(id, "disconnected"), ...this.status(id, "disconnected"));
      return this.each(socket, { type: "ack", requestId, datasourceId: id, ok: true });
    }
    const refuse = (errorCode: string, text: string): void =>
      this.each(socket, { type: "ack", requestId, datasourceId: id, ok: false, errorCode, message: text });
    const token = String(message.sessionToken);
    const expiresAt = Number(token.split("|")[1]);
    if (!message.datasourceId || !message.requestId || !message.dashboardId || !message.sessionToken)
      return refuse("STREAM_PROTOCOL_ERROR", "subscribe requires requestId, dashboardId, datasourceId, and sessionToken");
    if (!token.startsWith(`${id}|`)) return refuse("STREAM_AUTH_FAILED", "Datasource identifiers do not match token claims");
    if (expiresAt <= Date.now() + this.aheadMs) return refuse("STREAM_AUTH_FAILED", "Invalid datasource session token");
    const before = here.get(id);
    const broken = before ? before.broken : this.upstream === "broken";
    here.set(id, { token, expiresAt, broken });
    setTimeout(() => this.#expire(socket, id), expiresAt - Date.now() - this.aheadMs + 1);
    if (before) return this.each(socket, { type: "ack", requestId, datasourceId: id, ok: true });
    this.each(socket, ...this.status(id, "connecting"), { type: "ack", requestId, datasourceId: id, ok: true });
    if (broken) this.break(socket, id);
    else this.each(socket, ...this.status(id, "connected"));
  }

  /** The upstream of an SSE or WebSocket datasource stops. */
  break(socket: Socket, id: string): void {
    const fault = { datasourceId: id, errorCode: "STREAM_CONNECT_FAILED", message: "SSE upstream stream ended" };
    const subscription = this.held.get(socket)?.get(id);
    if (subscription) subscription.broken = true;
    this.each(socket, { type: "error", ...fault }, { type: "status", status: "error", ...fault }, ...this.status(id, "disconnected"));
  }

  status(datasourceId: string, status: NonNullable<Frame["status"]>): Frame[] {
    return [{ type: "status", datasourceId, status }];
  }

  /** It knows no batch. */
  each(socket: Socket, ...frames: Frame[]): void {
    for (const frame of frames) socket.push(frame);
  }

  #expire(socket: Socket, id: string): void {
    const subscription = this.held.get(socket)?.get(id);
    if (!subscription || subscription.expiresAt > Date.now() + this.aheadMs) return;
    this.held.get(socket)?.delete(id);
    const ended = { datasourceId: id, errorCode: "STREAM_AUTH_FAILED", message: "Datasource session token expired" };
    this.each(socket, ...this.status(id, "disconnected"), { type: "error", ...ended }, { type: "status", status: "error", ...ended });
  }

  get subscribes(): number {
    return this.sockets.reduce((sum, socket) => sum + socket.subscribes.length, 0);
  }
}

let gateway: Gateway;
let board: Dashboard;

beforeEach(() => {
  fakeTime();
  gateway = new Gateway();
});

afterEach(() => {
  board.stop();
  realTime();
});

async function live(ids = ["temp"]): Promise<void> {
  board = gateway.dashboard(ids, { datasourceSession: gateway.mint, socketUrl: "/gateway/realtime", renewAfterMs: 10_000 });
  board.start();
  await pass(1_000);
}

const temp = () => board.datasource("temp")!;
const data = (payload: number): Frame => ({ type: "data", datasourceId: "temp", payload });

test("each datasource is subscribed to with its own token, and is live", async () => {
  await live(["temp", "other"]);
  expect([board.state, temp().state, board.datasource("other")?.state]).toEqual(["live", "live", "live"]);
  expect(gateway.socket.subscribes.map(({ datasourceId, datasourceIds }) => [datasourceId, datasourceIds])).toEqual([
    ["temp", undefined],
    ["other", undefined],
  ]);
  gateway.each(gateway.socket, data(1), data(2));
  expect(temp().newest?.samples.map(({ value }) => value)).toEqual([1, 2]);
  expect(gateway.calls).toEqual([]);
});

test("there is no second connection after a while: without seq its values could not be told apart", async () => {
  await live();
  await pass(60_000);
  expect(gateway.sockets).toHaveLength(1);
});

test.each([0, 3_600_000, -3_600_000])("tokens are refreshed before they expire, and not in a storm: clock off by %d", async (ahead) => {
  gateway.aheadMs = ahead;
  await live();
  await pass(1_200_000);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
  expect(gateway.mintedFor.length).toBeGreaterThanOrEqual(5);
  expect(gateway.mintedFor.length).toBeLessThanOrEqual(8);
});

test("after an upstream failure it says why, ends what is left there, and comes back by itself", async () => {
  await live();
  gateway.each(gateway.socket, data(1));
  gateway.break(gateway.socket, "temp");
  expect([temp().state, temp().reason, temp().message]).toEqual(["error", "STREAM_CONNECT_FAILED", "SSE upstream stream ended"]);
  await pass(3_000);
  expect(gateway.socket.sent.filter(({ type }) => type === "unsubscribe")).toHaveLength(1);
  expect([board.state, temp().state, temp().message]).toEqual(["live", "live", undefined]);
  gateway.each(gateway.socket, data(2));
  expect(temp().newest?.latest?.value).toBe(2);
});

test("an upstream that stays broken is tried more and more slowly", async () => {
  gateway.upstream = "broken";
  await live();
  await pass(600_000);
  expect(gateway.subscribes).toBeGreaterThan(15);
  expect(gateway.subscribes).toBeLessThan(60);
  expect(gateway.sockets).toHaveLength(1);
  gateway.upstream = "up";
  await pass(32_000);
  expect(temp().state).toBe("live");
});

test("a token that expired while its endpoint was down is replaced when that is back", async () => {
  await live();
  gateway.mintFails = new TypeError("network");
  await pass(600_000);
  expect(temp().state).toBe("error");
  expect(gateway.mintedFor.length).toBeLessThan(60);
  gateway.mintFails = undefined;
  await pass(35_000);
  expect([temp().state, temp().reason]).toEqual(["live", undefined]);
});

test("a mint that is refused for good ends that datasource alone", async () => {
  await live(["temp", "other"]);
  const { mint } = gateway;
  gateway.mintFails = new Refused("FORBIDDEN", "Share token is stale", false);
  await pass(245_000);
  expect([board.state, board.message]).toEqual(["ended", "Share token is stale"]);
  board.stop();
  gateway.mintFails = undefined;
  board = gateway.dashboard(["temp", "other"], {
    datasourceSession: (id) => (id === "other" ? Promise.reject(new Refused("NOT_FOUND", "Not there", false)) : mint(id)),
  });
  board.start();
  await pass(1_000);
  expect([board.state, temp().state, board.datasource("other")?.state]).toEqual(["live", "live", "ended"]);
});

test("a connection that is lost is made again, and each datasource is subscribed to once", async () => {
  await live(["temp", "other"]);
  gateway.socket.cut();
  await pass(2_500);
  expect(gateway.sockets).toHaveLength(2);
  expect(gateway.socket.subscribes).toHaveLength(2);
  expect([temp().state, board.datasource("other")?.state]).toEqual(["live", "live"]);
  expect(gateway.calls).toEqual([]); // It has no `/api/realtime`.
});

test("a refusal that does not say whether it is for good is tried again, more and more slowly", async () => {
  const { receive } = gateway;
  const refusal = { ok: false, errorCode: "STREAM_RATE_LIMITED", message: "Subscription update already in progress" };
  gateway.receive = (socket, message) =>
    gateway.each(socket, { type: "ack", requestId: message.requestId ?? null, datasourceId: "temp", ...refusal });
  await live();
  await pass(120_000);
  expect([temp().state, temp().message]).toEqual(["error", "Subscription update already in progress"]);
  expect(gateway.subscribes).toBeLessThan(20);
  expect(gateway.mintedFor).toHaveLength(1);
  gateway.receive = receive;
  await pass(32_000);
  expect([temp().state, temp().message]).toEqual(["live", undefined]);
});

test("an expired token is told in three frames, and costs one new token", async () => {
  await live();
  const ended = { datasourceId: "temp", errorCode: "STREAM_AUTH_FAILED", message: "Datasource session token expired" };
  gateway.held.get(gateway.socket)?.delete("temp");
  gateway.each(
    gateway.socket,
    ...gateway.status("temp", "disconnected"),
    { type: "error", ...ended },
    { type: "status", status: "error", ...ended },
  );
  expect(temp().state).toBe("error");
  await pass(3_000);
  expect(temp().state).toBe("live");
  expect(gateway.mintedFor.length).toBeLessThanOrEqual(2);
  expect(gateway.socket.sent.filter(({ type }) => type === "unsubscribe")).toHaveLength(1);
});
