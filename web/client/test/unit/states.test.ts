/** The tables of states in README.md: each row, on a clock that the test moves. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Dashboard } from "../../src/index.js";
import { ALLOWED, fakeTime, pass, realTime, Server, value } from "../double.js";

let server: Server;
let board: Dashboard;

beforeEach(() => {
  fakeTime();
  server = new Server();
});

afterEach(() => {
  board?.stop();
  realTime();
  vi.unstubAllGlobals();
});

async function live(ids = ["temp"], options = {}): Promise<Dashboard> {
  board = server.dashboard(ids, options);
  board.start();
  await pass(100);
  expect(board.state).toBe("live");
  return board;
}

const temp = () => board.datasource("temp")!;

// --- the dashboard --------------------------------------------------------------------------------------------

test("idle, until it is started", async () => {
  board = server.dashboard();
  await pass(60_000);
  expect(board.state).toBe("idle");
  expect(server.sockets).toHaveLength(0);
  expect(server.calls).toHaveLength(0);
});

test("connecting, then live with the first ack", async () => {
  board = server.dashboard();
  board.start();
  expect(board.state).toBe("connecting");
  await pass(100);
  expect(board.state).toBe("live");
  expect(temp().state).toBe("live");
  expect(server.count("session")).toBe(1);
});

test("waiting after the connection was lost, with a time, then live again", async () => {
  await live();
  server.handshake = "refuse";
  server.socket.cut();
  expect(board.state).toBe("waiting");
  expect(board.reason).toBe("connection_lost");
  expect(board.retryInMs).toBeLessThanOrEqual(1_000);
  expect(temp().state).toBe("connecting");
  server.handshake = "accept";
  await pass(2_000);
  expect(board.state).toBe("live");
  expect(board.retryInMs).toBeUndefined();
});

test("offline when the device says so, and live at once when it is back", async () => {
  const events = new EventTarget();
  vi.stubGlobal("addEventListener", events.addEventListener.bind(events));
  vi.stubGlobal("removeEventListener", events.removeEventListener.bind(events));
  const navigator = { onLine: true };
  vi.stubGlobal("navigator", navigator);
  await live();
  navigator.onLine = false;
  events.dispatchEvent(new Event("offline"));
  expect(board.state).toBe("offline");
  navigator.onLine = true;
  events.dispatchEvent(new Event("online"));
  await pass(100);
  expect(board.state).toBe("live");
  board.stop();
  const opened = server.sockets.length;
  events.dispatchEvent(new Event("online"));
  await pass(60_000);
  expect(server.sockets).toHaveLength(opened);
});

test("a device that is wrong about being offline is not believed for ever", async () => {
  vi.stubGlobal("navigator", { onLine: false });
  await live();
  server.socket.cut();
  expect(board.state).toBe("offline");
  await pass(3_000);
  expect(board.state).toBe("live");
});

test("ended by a refusal of the token, with its reason, and nothing is asked any more", async () => {
  const error = { code: "denied", message: "This link no longer works" };
  server.answers.session = () => ({ status: 403, body: { error } });
  board = server.dashboard();
  board.start();
  await pass(100);
  expect([board.state, board.reason, board.message]).toEqual(["ended", "denied", "This link no longer works"]);
  expect(temp().state).toBe("ended");
  const { length } = server.calls;
  await pass(600_000);
  expect(server.calls).toHaveLength(length);
  expect(server.sockets).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

test("an ended one may be started again", async () => {
  server.answers.session = () => ({ status: 403, body: { error: { code: "denied", message: "No" } } });
  board = server.dashboard();
  board.start();
  await pass(100);
  server.answers = {};
  board.start();
  expect(board.reason).toBeUndefined();
  await pass(100);
  expect(board.state).toBe("live");
  expect(temp().state).toBe("live");
});

test("stopped while a token is minted: nothing comes of it", async () => {
  board = server.dashboard();
  board.start();
  await pass(5);
  board.stop();
  await pass(600_000);
  expect(board.state).toBe("idle");
  expect(server.sockets).toHaveLength(1);
  expect(server.socket.sent).toHaveLength(0);
  expect(server.socket.readyState).toBe(3);
  expect(vi.getTimerCount()).toBe(0);
});

test("stopped and started while a token is minted: one connection, one subscribe", async () => {
  board = server.dashboard();
  board.start();
  await pass(5);
  board.stop();
  board.start();
  await pass(1_000);
  expect(board.state).toBe("live");
  expect(server.sockets.filter(({ readyState }) => readyState === 1)).toHaveLength(1);
  expect(server.socket.subscribes).toHaveLength(1);
});

// --- a datasource ---------------------------------------------------------------------------------------------

test("a datasource is connecting while its upstream is, and in error while that fails", async () => {
  server.onSubscribe = (id) => [
    { type: "ack", datasourceId: id, ok: true },
    { type: "status", datasourceId: id, status: "connecting" },
  ];
  await live();
  expect(temp().state).toBe("connecting");
  const broken = { type: "status", datasourceId: "temp", status: "error" } as const;
  server.socket.push({ ...broken, errorCode: "STREAM_CONNECT_REFUSED", message: "Upstream rejected connection" });
  expect([temp().state, temp().reason]).toEqual(["error", "STREAM_CONNECT_REFUSED"]);
  expect(temp().message).toBe("Upstream rejected connection");
  server.socket.push({ type: "status", datasourceId: "temp", status: "connected" });
  expect([temp().state, temp().reason, temp().message]).toEqual(["live", undefined, undefined]);
});

test("a datasource is stale when nothing came for so long, and never live with an old value", async () => {
  await live(["temp"], { datasources: [{ id: "temp", staleAfterSeconds: 30 }] });
  server.socket.push(value(1));
  expect(temp().state).toBe("live");
  await pass(29_000);
  expect(temp().state).toBe("live");
  await pass(2_000);
  expect(temp().state).toBe("stale");
  server.socket.push(value(2));
  expect(temp().state).toBe("live");
  server.socket.push(value(3, { timestamp: server.in(-60_000), retained: true }));
  expect(temp().state).toBe("stale");
});

test("a datasource that is refused ends alone, with its reason", async () => {
  server.onSubscribe = (id) => [
    id === "gone"
      ? { type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_POLICY_BLOCKED", message: "No", retryable: false }
      : { type: "ack", datasourceId: id, ok: true },
    { type: "status", datasourceId: id, status: "connected" },
  ];
  await live(["temp", "gone"]);
  await pass(5_000);
  const gone = board.datasource("gone")!;
  expect([gone.state, gone.reason, gone.message]).toEqual(["ended", "STREAM_POLICY_BLOCKED", "No"]);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
});

test("the page is told once for what came together, and which datasources changed", async () => {
  await live(["temp", "other"]);
  await pass(100);
  const told: string[][] = [];
  const end = board.subscribe((changed) => told.push([...changed]));
  for (let n = 0; n < 50; n++) server.socket.push(value(n));
  server.socket.push(value(1, { datasourceId: "other" }));
  expect(told).toEqual([]);
  await pass(20);
  expect(told).toEqual([["temp", "other"]]);
  end();
  server.socket.push(value(1));
  await pass(20);
  expect(told).toHaveLength(1);
});

test("a saved document is told by its revision, and an earlier one does not take it back", async () => {
  await live();
  server.socket.push({ type: "document", dashboardId: "dash", revision: 8 });
  server.socket.push({ type: "document", dashboardId: "dash", revision: 7 });
  expect(board.revision).toBe(8);
});

test("frames of unknown types and datasources, garbage and errors without a datasource are passed over", async () => {
  await live();
  const { socket } = server;
  socket.onmessage?.({ data: "{" });
  socket.onmessage?.({ data: "null" });
  socket.onmessage?.({ data: "[]" });
  socket.onmessage?.({ data: '{"message":"Internal server error","connectionId":"x"}' });
  socket.push({ type: "news" }, { type: "data", datasourceId: "none", payload: 1 });
  socket.push({ type: "error", datasourceId: null, errorCode: "STREAM_PROTOCOL_ERROR", message: "?" });
  socket.push(value(1));
  expect(temp().newest?.latest?.value).toBe(1);
  expect(board.state).toBe("live");
});

// --- tokens ---------------------------------------------------------------------------------------------------

test("a token is refreshed at refreshAfter, with the old one as currentToken, and all is subscribed to again", async () => {
  await live(["temp", "other"]);
  await pass(179_000);
  expect(server.count("session")).toBe(1);
  await pass(2_000);
  expect(server.count("session")).toBe(2);
  expect(server.calls.at(-1)?.body).toEqual({ currentToken: "token-1" });
  const again = server.socket.subscribes.at(-1);
  expect([again?.sessionToken, again?.datasourceIds]).toEqual(["token-2", ["temp", "other"]]);
  expect(server.socket.subscribes).toHaveLength(2);
});

test.each([3_600_000, -3_600_000])("a device whose clock is wrong by %d ms refreshes as often as any other", async (ahead) => {
  server.aheadMs = ahead;
  await live();
  await pass(905_000);
  expect(server.count("session")).toBe(6); // at 0, 180, ... 900 seconds
  server.socket.push(value(1));
  expect(board.serverTime - (temp().newest?.latest?.at ?? 0)).toBeLessThan(1_000);
});

test.each([3_600_000, -3_600_000])("nor does it mint again and again when the answer has no times but the end", async (ahead) => {
  server.aheadMs = ahead;
  let minted = 0;
  await live(["temp"], { session: async () => ({ token: `own-${++minted}`, expiresAt: server.in(300_000) }) });
  await pass(230_000);
  expect(minted).toBeLessThanOrEqual(2);
  await pass(900_000);
  expect(minted).toBeLessThanOrEqual(6);
  expect(board.state).toBe("live");
});

test("while its endpoint is down for ten minutes the old token serves, then the board waits, and nothing storms", async () => {
  await live();
  server.answers.session = () => ({ status: 503, body: { error: { code: "unavailable", message: "Later" } } });
  await pass(180_000 + 110_000);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
  const expired = { datasourceId: "temp", errorCode: "STREAM_AUTH_FAILED", message: "expired", reason: "expired" } as const;
  await pass(20_000);
  server.socket.push({ type: "error", retryable: true, ...expired }, { type: "status", status: "error", ...expired });
  await pass(290_000);
  expect([temp().state, temp().reason]).toEqual(["error", "unavailable"]);
  expect(server.count("session")).toBeLessThan(60);
  expect(server.sockets).toHaveLength(1);
  server.answers = {};
  await pass(31_000);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
});

test("an endpoint that is down from the beginning is asked more and more slowly, and no connection is opened for it", async () => {
  server.answers.session = () => {
    throw new TypeError("network");
  };
  board = server.dashboard();
  board.start();
  await pass(600_000);
  expect([board.state, board.reason]).toEqual(["waiting", "network"]);
  expect(server.count("session")).toBeGreaterThan(15);
  expect(server.count("session")).toBeLessThan(80);
  expect(server.sockets).toHaveLength(1);
  server.answers = {};
  await pass(31_000);
  expect(board.state).toBe("live");
});

test("429 with retryAfterMs is waited out in full", async () => {
  const error = { code: "rate_limited", message: "Too many", retryAfterMs: 42_000 };
  server.answers.session = () => ({ status: 429, body: { error } });
  board = server.dashboard();
  board.start();
  await pass(41_000);
  expect([board.state, board.reason]).toEqual(["waiting", "rate_limited"]);
  expect(server.count("session")).toBe(1);
  server.answers = {};
  await pass(2_600);
  expect(board.state).toBe("live");
});

test("many datasources whose token expired ask for one new token, whenever each is told", async () => {
  const ids = Array.from({ length: 30 }, (_, n) => `d${n}`);
  await live(ids);
  const { socket } = server;
  server.latencyMs = 1_000;
  for (const datasourceId of ids) {
    socket.push({ type: "error", datasourceId, errorCode: "STREAM_AUTH_FAILED", reason: "expired", retryable: true });
    await pass(50);
  }
  await pass(3_000);
  expect(server.count("session")).toBe(2);
  expect(ids.map((id) => board.datasource(id)?.state)).toEqual(ids.map(() => "live"));
});

test("a token that all refuse is minted anew once a round, and the rounds grow apart", async () => {
  const ids = Array.from({ length: 30 }, (_, n) => `d${n}`);
  server.onSubscribe = (id) => [
    { type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_AUTH_FAILED", message: "No", retryable: true },
  ];
  board = server.dashboard(ids);
  board.start();
  await pass(300_000);
  expect(server.count("session")).toBeLessThan(45);
  const messages = server.sockets.flatMap(({ subscribes }) => subscribes);
  expect(messages.length).toBeLessThan(45);
  expect(server.sockets).toHaveLength(1);
});

// --- the connection -------------------------------------------------------------------------------------------

test("a lost ack is made up for: the message is sent again", async () => {
  const usual = server.onSubscribe;
  server.onSubscribe = () => [];
  board = server.dashboard();
  board.start();
  await pass(14_000);
  expect(board.state).toBe("connecting");
  server.onSubscribe = usual;
  await pass(2_000);
  expect(board.state).toBe("live");
  expect(server.socket.subscribes).toHaveLength(2);
});

test("a silent connection is asked, and an answer is enough", async () => {
  await live();
  await pass(170_000);
  expect(server.socket.pings).toBe(3);
  expect(server.sockets).toHaveLength(1);
});

test("a half-open connection is noticed, and replaced", async () => {
  await live();
  server.socket.halfOpen = true;
  await pass(45_000 + 3_000 + 1_000);
  expect(server.socket.readyState === 3 || server.sockets.length === 2).toBe(true);
  await pass(2_000);
  expect(server.sockets).toHaveLength(2);
  expect(board.state).toBe("live");
});

test("a handshake that nobody answers is given up", async () => {
  server.handshake = "hang";
  board = server.dashboard();
  board.start();
  await pass(15_600);
  expect(board.state).toBe("waiting");
  server.handshake = "accept";
  await pass(2_500);
  expect(board.state).toBe("live");
});

test("after a sleep a new token and a new connection are got at once, and ages are right before", async () => {
  await live();
  server.socket.push(value(1));
  server.socket.halfOpen = true;
  // The device slept: no timer ran, and the monotonic clock stood still.
  vi.setSystemTime(Date.now() + 90_000);
  server.latencyMs = 1_000;
  await pass(600);
  expect(board.serverTime - (temp().newest?.latest?.at ?? 0)).toBeGreaterThan(90_000);
  await pass(3_500);
  expect(board.state).toBe("live");
  expect(server.sockets).toHaveLength(2);
  expect(server.count("session")).toBe(2);
  expect(server.socket.subscribes[0]?.since).toHaveProperty("temp");
});

test("a refused handshake is asked about over HTTP, and the wait is what the server wants", async () => {
  await live();
  server.handshake = "refuse";
  const refused = { state: "refused", errorCode: "STREAM_RATE_LIMITED", message: "Too many connections", retryable: true };
  server.answers.realtime = () => ({ body: { connect: { ...refused, retryAfterMs: 60_000 }, subscribe: null } });
  server.socket.cut();
  await pass(3_000);
  expect([board.state, board.reason]).toEqual(["waiting", "STREAM_RATE_LIMITED"]);
  expect(board.retryInMs).toBeGreaterThan(50_000);
  expect(server.sockets).toHaveLength(2);
  expect(server.count("realtime")).toBe(1);
});

test("a refused handshake for good ends it: one check, no storm", async () => {
  await live();
  server.handshake = "refuse";
  const refused = { state: "refused", errorCode: "STREAM_POLICY_BLOCKED", message: "Realtime is off", retryable: false };
  server.answers.realtime = () => ({ body: { connect: { ...refused, retryAfterMs: null }, subscribe: null } });
  server.socket.cut();
  await pass(600_000);
  expect([board.state, board.message]).toEqual(["ended", "Realtime is off"]);
  expect(server.count("realtime")).toBe(1);
  expect(server.sockets).toHaveLength(2);
});

test("a server that is gone for ten minutes is tried with pauses that grow to thirty seconds", async () => {
  await live();
  server.handshake = "refuse";
  server.answers.realtime = () => {
    throw new TypeError("network");
  };
  server.socket.cut();
  await pass(600_000);
  expect(server.sockets.length).toBeGreaterThan(20);
  expect(server.sockets.length).toBeLessThan(80);
  expect(server.count("realtime")).toBe(server.sockets.length - 1);
  expect(board.state).toBe("waiting");
});

test("a connection that stood for ten seconds takes the pauses back, one that did not does not", async () => {
  vi.mocked(Math.random).mockReturnValue(1);
  await live();
  const waits: (number | undefined)[] = [];
  for (const stood of [5_000, 5_000, 20_000]) {
    await pass(stood);
    server.socket.cut();
    waits.push(board.retryInMs);
    await pass((board.retryInMs ?? 0) + 1_000);
    expect(board.state).toBe("live");
  }
  expect(waits).toEqual([1_000, 2_000, 1_000]);
});

test("`limit` closes the connection, and it comes back after the time that was said", async () => {
  await live();
  const { socket } = server;
  socket.push({ type: "error", datasourceId: null, errorCode: "STREAM_RATE_LIMITED", reason: "limit", retryAfterMs: 60_000, message: "Too many messages" });
  expect([board.state, board.reason, board.message]).toEqual(["waiting", "limit", "Too many messages"]);
  expect(socket.readyState).toBe(3);
  await pass(59_000);
  expect(server.sockets).toHaveLength(1);
  await pass(3_000);
  expect(board.state).toBe("live");
});

// --- the next connection --------------------------------------------------------------------------------------

test("the next connection takes over when all is acked on it, and no value is marked as a gap", async () => {
  await live(["temp", "other"], { renewAfterMs: 10_000 });
  server.socket.push(value(1));
  const before = server.socket;
  await pass(10_600);
  expect(server.sockets).toHaveLength(2);
  expect(server.socket.subscribes[0]?.since).toEqual({});
  // Whoever sends it does not know of the new subscription yet.
  before.push(value(2));
  before.push({ type: "error", datasourceId: "temp", reason: "expired", retryable: true });
  await pass(5_000);
  expect([before.readyState, server.socket.readyState]).toEqual([3, 1]);
  server.socket.push(value(3));
  const shown = temp().newest?.samples.map((sample) => [sample.value, sample.gap]);
  expect(shown).toEqual([[1, undefined], [2, undefined], [3, undefined]]);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
});

test("what both connections bring is taken once", async () => {
  await live(["temp"], { renewAfterMs: 10_000 });
  const before = server.socket;
  server.latencyMs = 500;
  await pass(12_000);
  expect(server.sockets).toHaveLength(2);
  const twice = value(1);
  before.push(twice);
  server.socket.push(twice);
  await pass(8_000);
  expect(before.readyState).toBe(3);
  server.socket.push(twice, value(2));
  expect(temp().newest?.samples.map((sample) => sample.value)).toEqual([1, 2]);
});

test.each(["refuse", "hang"] as const)("a next connection that is given no answer (%s) is tried rarely, and the old one serves on", async (handshake) => {
  await live(["temp"], { renewAfterMs: 10_000 });
  const old = server.socket;
  server.handshake = handshake;
  await pass(300_000);
  expect(server.sockets.length).toBeLessThan(12);
  expect(old.readyState).toBe(1);
  old.push(value(5));
  expect([board.state, temp().newest?.latest?.value]).toEqual(["live", 5]);
});

test("a next connection on which one ack is missing is given up, and the old one serves on", async () => {
  await live(["temp", "other"], { renewAfterMs: 10_000 });
  const old = server.socket;
  const usual = server.onSubscribe;
  server.onSubscribe = (id, message) => (id === "other" && server.sockets.length > 1 ? [] : usual(id, message));
  await pass(45_000);
  expect([old.readyState, server.sockets[1]?.readyState]).toEqual([1, 3]);
  server.onSubscribe = usual;
  await pass(95_000);
  expect([old.readyState, server.socket.readyState, board.state]).toEqual([3, 1, "live"]);
});

test("a next connection on which something is refused for now is given up at once", async () => {
  await live(["temp"], { renewAfterMs: 10_000 });
  const usual = server.onSubscribe;
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_RATE_LIMITED", retryable: true, retryAfterMs: 1_000 }];
  await pass(10_600);
  expect(server.sockets.map(({ readyState }) => readyState)).toEqual([1, 3]);
  expect([board.state, temp().state]).toEqual(["live", "live"]);
  server.onSubscribe = usual;
  await pass(65_000);
  expect(server.sockets[0]?.readyState).toBe(3);
  expect(board.state).toBe("live");
});

test("the old connection is lost while the next one is opened: one of them is left", async () => {
  await live(["temp"], { renewAfterMs: 10_000 });
  server.latencyMs = 1_000;
  await pass(11_200);
  expect(server.sockets).toHaveLength(2);
  server.sockets[0]?.cut();
  await pass(10_000);
  expect(board.state).toBe("live");
  expect(server.sockets.filter(({ readyState }) => readyState === 1)).toHaveLength(1);
});

// --- refusals -------------------------------------------------------------------------------------------------

test("revoked: one check over HTTP, then ended, and nothing is minted any more", async () => {
  await live(["temp", "other"]);
  const denied = { ...ALLOWED, state: "refused", errorCode: "STREAM_AUTH_FAILED", message: "No", retryable: false };
  server.answers.realtime = () => ({ body: { connect: ALLOWED, subscribe: denied } });
  const revoked = { errorCode: "STREAM_AUTH_FAILED", message: "Stream authorization was revoked", reason: "revoked", retryable: false } as const;
  for (const datasourceId of ["temp", "other"]) server.socket.push({ type: "error", datasourceId, ...revoked });
  await pass(600_000);
  expect([board.state, board.reason, board.message]).toEqual(["ended", "revoked", "Stream authorization was revoked"]);
  expect(server.count("realtime")).toBe(1);
  expect(server.calls.at(-1)?.authorization).toBe("Bearer token-1");
  expect(server.count("session")).toBe(1);
  expect(server.sockets).toHaveLength(1);
  expect(server.socket.readyState).toBe(3);
});

test("a refusal that is over when it is asked about is tried once more, and then is final", async () => {
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_AUTH_FAILED", message: "No", retryable: false }];
  board = server.dashboard();
  board.start();
  await pass(600_000);
  expect(board.state).toBe("ended");
  expect(server.count("realtime")).toBe(1);
  expect(server.sockets).toHaveLength(2);
  expect(server.sockets.flatMap(({ subscribes }) => subscribes)).toHaveLength(2);
});

test("stopped while a refusal is asked about: it stays stopped", async () => {
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_AUTH_FAILED", message: "No", retryable: false }];
  board = server.dashboard();
  board.start();
  await pass(31);
  expect(server.count("realtime")).toBe(1);
  board.stop();
  await pass(60_000);
  expect([board.state, temp().state]).toEqual(["idle", "ended"]);
  expect(server.sockets).toHaveLength(1);
});

test("a limit is waited for by the datasource alone, and the reason is gone with the next ack", async () => {
  const usual = server.onSubscribe;
  const refused = { ok: false, errorCode: "STREAM_RATE_LIMITED", message: "Too many", retryable: true, retryAfterMs: 20_000 };
  server.onSubscribe = (id, message) => (id === "temp" ? [{ type: "ack", datasourceId: id, ...refused }] : usual(id, message));
  await live(["temp", "other"]);
  expect([temp().state, temp().message, board.datasource("other")?.state]).toEqual(["error", "Too many", "live"]);
  await pass(19_500);
  expect(server.socket.subscribes).toHaveLength(1);
  server.onSubscribe = usual;
  await pass(2_500);
  expect([temp().state, temp().reason]).toEqual(["live", undefined]);
  expect(server.socket.subscribes[1]?.datasourceIds).toEqual(["temp"]);
  expect(server.count("session")).toBe(1);
});

test("a refresh that was refused once does not leave an error behind", async () => {
  await live();
  const usual = server.onSubscribe;
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ok: false, errorCode: "STREAM_CONNECT_FAILED", message: "?", retryable: true, retryAfterMs: 1_000 }];
  await pass(181_000);
  expect(temp().state).toBe("error");
  // A refresh is answered with an ack only.
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ok: true }];
  await pass(3_000);
  expect([temp().state, temp().reason]).toEqual(["live", undefined]);
  server.onSubscribe = usual;
});

test("a datasource that was changed begins anew: nothing of the source before is shown", async () => {
  await live();
  const { socket } = server;
  socket.push(value(1));
  const changed = { type: "error", datasourceId: "temp", errorCode: "STREAM_AUTH_FAILED", message: "changed", reason: "changed", retryable: true } as const;
  socket.push(changed, value(2));
  expect(temp().series.size).toBe(0);
  await pass(2_500);
  expect(temp().state).toBe("live");
  expect(socket.subscribes[1]).toMatchObject({ sessionToken: "token-2", since: {} });
  expect(server.calls.at(-1)?.body).toEqual({ currentToken: "token-1" });
  socket.push(value(3, { seq: "000000000000001-m" }));
  expect(temp().newest?.samples.map((sample) => sample.value)).toEqual([3]);
});

test("300 datasources on a connection that may have 50: 50 are live, the others say why, and nothing storms", async () => {
  const ids = Array.from({ length: 300 }, (_, n) => `d${n}`);
  const had = new Set<string>();
  const full = { ok: false, errorCode: "STREAM_RATE_LIMITED", message: "At most 50 subscriptions", retryable: false };
  server.onSubscribe = (id) => {
    if (had.size < 50) had.add(id);
    return [had.has(id) ? { type: "ack", datasourceId: id, ok: true } : { type: "ack", datasourceId: id, ...full }];
  };
  await live(ids);
  await pass(120_000);
  const states = ids.map((id) => board.datasource(id)!.state);
  expect(states.filter((state) => state !== "ended")).toHaveLength(50);
  expect(board.datasource("d299")?.message).toBe("At most 50 subscriptions");
  expect(server.socket.subscribes).toHaveLength(6 + 5); // Once, and once more after the check.
  expect(server.count("realtime")).toBe(1);
  expect(server.socket.subscribes.every((message) => (message.datasourceIds?.length ?? 0) <= 50)).toBe(true);
});

test("a message that names too many at once is sent in smaller ones", async () => {
  const ids = Array.from({ length: 30 }, (_, n) => `d${n}`);
  server.receive = (socket, message) => {
    if (message.type !== "subscribe") return;
    const few = (message.datasourceIds?.length ?? 0) <= 10;
    const refusal = { datasourceId: null, ok: false, errorCode: "STREAM_PROTOCOL_ERROR", message: "at most 10 at once", retryable: false };
    const frames = few ? (message.datasourceIds ?? []).map((datasourceId) => ({ datasourceId, ok: true })) : [refusal];
    socket.push(...frames.map((frame) => ({ type: "ack", requestId: message.requestId ?? null, ...frame })));
  };
  board = server.dashboard(ids);
  board.start();
  await pass(5_000);
  expect(board.state).toBe("live");
  expect(ids.every((id) => board.datasource(id)?.pending === undefined)).toBe(true);
  expect(board.datasource("d29")?.state).toBe("connecting");
});

test("when all are refused for a minute no connection is kept open for nothing", async () => {
  const refused = { ok: false, errorCode: "STREAM_RATE_LIMITED", message: "Too many", retryable: true, retryAfterMs: 60_000 };
  server.onSubscribe = (id) => [{ type: "ack", datasourceId: id, ...refused }];
  await live();
  server.socket.cut(); // The server closes a connection that watches nothing.
  expect(board.retryInMs).toBeGreaterThan(59_000);
});

// --- history --------------------------------------------------------------------------------------------------

test("a history is read with the session token, and merged", async () => {
  await live();
  const points = [{ at: server.in(-10_000), least: 1, most: 3, last: 2, seq: "000000000000000-m" }];
  server.answers.history = () => ({ body: { points } });
  server.socket.push(value(9));
  const read = board.history("temp");
  await pass(20);
  expect(await read).toBe(true);
  expect(server.calls.at(-1)).toMatchObject({ path: "/api/dashboards/dash/history?datasourceId=temp", authorization: "Bearer token-1" });
  expect(temp().newest?.samples.map((sample) => sample.value)).toEqual([2, 9]);
});

test("a history that comes after the source was changed, or after the end, is dropped", async () => {
  await live();
  server.answers.history = () => ({ body: { points: [{ at: server.now(), last: 1, seq: "1" }] } });
  const read = board.history("temp");
  await pass(5);
  server.socket.push({ type: "error", datasourceId: "temp", reason: "changed", retryable: true });
  await pass(20);
  expect(await read).toBe(false);
  expect(temp().series.size).toBe(0);
  const stopped = board.history("temp");
  board.stop();
  await pass(20);
  expect(await stopped).toBe(false);
});

test("on return it asks for what came since, and the gap is marked until the history says that nothing is missing", async () => {
  await live();
  server.socket.push(value(1));
  const { seq } = temp();
  server.socket.cut();
  await pass(2_000);
  expect(server.socket.subscribes[0]?.since).toEqual({ temp: seq });
  server.socket.push(value(2));
  expect(temp().newest?.samples.map(({ gap }) => gap)).toEqual([undefined, true]);
  server.socket.push({ type: "history", datasourceId: "temp", points: [], end: true, recovered: true });
  expect(temp().newest?.samples.map(({ gap }) => gap)).toEqual([undefined, undefined]);
});
