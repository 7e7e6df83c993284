/** The client against the real stack, with what networks, servers and people do between. */

import { createHmac } from "node:crypto";
import { connect, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { Dashboard, mint, type Options } from "../../src/index.js";
import { Proxy } from "./proxy.js";
import { Api, counter, document, shared, stack, type Board } from "./stack.js";

const PATH = "/gateway/realtime";
/** Connections that an address may have, on the local stage. */
const CONNECTIONS = 25;
/** A subscription of an expired token is told within 15 seconds. */
const LONG_MS = 30_000;

/** As on a page of the edge: a stack that names its origins asks for one. */
class FromTheEdge extends WebSocket {
  constructor(url: string | URL) {
    super(url, { headers: { Origin: stack.edge_url } } as unknown as string[]);
  }
}

let editor: Api;
let made: Board;
let proxy: Proxy;
let board: Dashboard;
/** The clocks of the device, less the real ones, in milliseconds. */
let date = 0;
let monotonic = 0;
let addresses = 0;

beforeAll(async () => {
  editor = await Api.as("editor");
  made = await shared(editor, counter("counter", 5));
  const now = Date.now.bind(Date);
  const elapsed = performance.now.bind(performance);
  vi.spyOn(Date, "now").mockImplementation(() => now() + date);
  vi.spyOn(performance, "now").mockImplementation(() => elapsed() + monotonic);
});

beforeEach(async () => {
  date = monotonic = 0;
  const third = Math.floor(process.pid / 250) % 250;
  proxy = await Proxy.start(stack.edge_url, `127.${20 + (process.pid % 200)}.${third}.${++addresses}`);
});

afterEach(async () => {
  board?.stop();
  await proxy.stop();
});

afterAll(async () => {
  if (made) await editor.call("DELETE", `/api/dashboards/${made.id}`);
  vi.restoreAllMocks();
});

function watch(options: Partial<Options> = {}): void {
  const { id: dashboardId, shareToken } = made;
  const datasources = [{ id: "counter" }];
  board = new Dashboard({ url: proxy.url, dashboardId, shareToken, datasources, WebSocket: FromTheEdge, ...options });
  board.start();
}

const until = (condition: () => unknown, timeout = LONG_MS): Promise<unknown> =>
  vi.waitUntil(condition, { timeout, interval: 20 });
const datasource = () => board.datasource("counter")!;
/** The numbers of the live values, in the order in which they are kept. */
const numbers = (): number[] =>
  (datasource().newest?.samples ?? []).flatMap(({ value, bucket }) => (bucket ? [] : [(value as { n: number }).n]));
const newest = (): number => numbers().at(-1) ?? -1;
const live = () => until(() => board.state === "live" && datasource().state === "live" && newest() >= 0);

/** Live again, with a value that is newer than all before. */
async function liveAgain(): Promise<void> {
  const before = newest();
  await until(() => board.state === "live" && datasource().state === "live" && newest() > before);
  expect(numbers()).toEqual([...new Set(numbers())].sort((one, other) => one - other));
}

test("who has the link is live, and sees what was before", async () => {
  watch();
  await live();
  // A point comes each second. An address may read 60 times a minute, so it is not asked for more often.
  await vi.waitUntil(() => board.history("counter"), { timeout: LONG_MS, interval: 1_000 });
  const { samples } = datasource().newest!;
  expect(samples.some(({ bucket }) => bucket)).toBe(true);
  expect(samples.map(({ at }) => at)).toEqual(samples.map(({ at }) => at).sort());
});

test("dropped: it comes back, asks for what came since, and the gap is marked or filled", async () => {
  watch();
  await live();
  proxy.drop();
  await until(() => board.state === "waiting");
  await liveAgain();
  // Marked until the history says that nothing is missing, which takes it some seconds; or filled with its points.
  expect(datasource().newest!.samples.some(({ gap, bucket }) => gap || bucket)).toBe(true);
});

test("half-open: silence is asked about, and the connection is replaced", async () => {
  watch();
  await live();
  proxy.freeze();
  monotonic += 46_000;
  date += 46_000;
  await until(() => board.state === "live");
  // The ping goes out with the next tick; its answer does not come.
  await vi.waitUntil(
    () => {
      monotonic += 1_000;
      date += 1_000;
      return proxy.count(PATH) === 2;
    },
    { timeout: LONG_MS, interval: 100 },
  );
  await liveAgain();
});

test("a sleep of 90 seconds: a new token and a new connection at once", async () => {
  watch();
  await live();
  const minted = proxy.count("/session");
  proxy.freeze();
  date += 90_000;
  await until(() => proxy.count(PATH) === 2);
  await liveAgain();
  expect(proxy.count("/session")).toBe(minted + 1);
  expect(proxy.count(PATH)).toBe(2);
});

test("the server is gone, and comes back", async () => {
  watch();
  await live();
  proxy.gone = true;
  proxy.drop();
  await until(() => proxy.count(PATH) >= 3);
  expect(board.state).toBe("waiting");
  proxy.gone = false;
  await liveAgain();
});

test("handshakes refused by the limit of connections: the API says which, and how long to wait", async () => {
  const held = await Promise.all(Array.from({ length: CONNECTIONS }, () => raw(proxy.address)));
  watch();
  await until(() => board.reason === "STREAM_RATE_LIMITED");
  expect(board.state).toBe("waiting");
  expect(board.retryInMs).toBeGreaterThan(1_000);
  expect(board.message).toMatch(/connections/);
  expect([proxy.count(PATH), proxy.count("/api/realtime")]).toEqual([1, 1]);
  for (const socket of held) socket.destroy();
});

test("429 with retryAfterMs: it waits so long, and is live then", async () => {
  const error = { code: "rate_limited", message: "Too many viewers", retryAfterMs: 2_000 };
  proxy.faults.set("/session", { status: 429, body: { error } });
  watch();
  await until(() => board.reason === "rate_limited");
  expect(board.retryInMs).toBeGreaterThan(1_000);
  expect(proxy.count("/session")).toBe(1);
  proxy.faults.clear();
  await live();
  expect(proxy.count("/session")).toBe(2);
});

test("the endpoint of tokens is down: it waits and says so, and is live when it is back", async () => {
  proxy.faults.set("/session", { status: 503, body: { error: { code: "unavailable", message: "Later" } } });
  watch();
  await until(() => proxy.count("/session") >= 3);
  expect([board.state, board.reason].includes("live")).toBe(false);
  expect(proxy.count(PATH)).toBe(1);
  proxy.faults.clear();
  await live();
});

test.each([3_600_000, -3_600_000])("a clock that is wrong by %d ms: one token, and ages are right", async (wrong) => {
  date = wrong;
  watch();
  await live();
  await liveAgain();
  const age = board.serverTime - (datasource().newest?.latest?.at ?? 0);
  expect(Math.abs(age)).toBeLessThan(60_000);
  expect(proxy.count("/session")).toBe(1);
});

test("the end after two hours: the next connection takes over, and no number is missing or twice", async () => {
  // Two a second: of more, a stream may leave some out.
  const own = await shared(editor, counter("counter", 2));
  watch({ dashboardId: own.id, shareToken: own.shareToken, renewAfterMs: 6_000 });
  await live();
  // What came at subscribe is the last value from before.
  const followed = () => numbers().find((n, index, all) => all[index + 3] === n + 3);
  await until(followed);
  const begin = followed()!;
  const handshakes = proxy.count(PATH);
  await until(() => proxy.count(PATH) >= handshakes + 1);
  const end = newest() + 3;
  await until(() => newest() >= end);
  const all = numbers().filter((n) => n > begin);
  expect(all).toEqual(Array.from({ length: all.length }, (_, n) => begin + 1 + n));
  expect(datasource().newest!.samples.some(({ gap }) => gap)).toBe(false);
  await until(() => proxy.open === 1);
  await editor.call("DELETE", `/api/dashboards/${own.id}`);
});

test("expired: a new token is got, and it goes on", async () => {
  const asked: number[] = [];
  watch({
    session: async (currentToken) => {
      const session = await mint({ url: proxy.url, dashboardId: made.id, shareToken: made.shareToken }, currentToken);
      asked.push(Date.now());
      if (asked.length > 1) return session;
      const token = await resigned(session.token, 3);
      // It says that it lives on: so the client is told by the server.
      return { ...session, token };
    },
  });
  await live();
  await until(() => asked.length === 2);
  await liveAgain();
  expect(asked).toHaveLength(2);
});

test("changed: the new source is shown, and the document's revision is told", async () => {
  const own = await shared(editor, counter("counter", 5), counter("other", 1));
  watch({ dashboardId: own.id, shareToken: own.shareToken, datasources: [{ id: "counter" }, { id: "other" }] });
  await live();
  const { revision } = await editor.call("GET", `/api/dashboards/${own.id}`);
  const after = document(counter("counter", 4), counter("other", 1));
  await editor.call("PUT", `/api/dashboards/${own.id}`, after, { "If-Match": `"${revision}"` });
  await until(() => datasource().reason === "changed");
  await until(() => (board.revision ?? 0) > Number(revision));
  await live();
  await editor.call("DELETE", `/api/dashboards/${own.id}`);
});

test("revoked: it ends with the reason, after one question, and asks nothing any more", async () => {
  const own = await shared(editor, counter("counter", 5));
  watch({ dashboardId: own.id, shareToken: own.shareToken });
  await live();
  await editor.call("POST", `/api/dashboards/${own.id}/share-token:rotate`);
  await until(() => board.state === "ended");
  expect([board.reason, datasource().state]).toEqual(["revoked", "ended"]);
  await until(() => proxy.count("/api/realtime") === 1 && proxy.open === 0);
  const { length } = proxy.seen;
  // A whole minute passes for the client; whatever it would do, it would do then.
  date += 60_000;
  monotonic += 60_000;
  await new Promise((resolve) => setImmediate(resolve));
  expect(proxy.seen).toHaveLength(length);
  await editor.call("DELETE", `/api/dashboards/${own.id}`);
});

/** A WebSocket from this address that does nothing: only its handshake is made. */
function raw(address: string): Promise<Socket> {
  const { hostname: host, port } = new URL(stack.edge_url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), localAddress: address }, () => {
      socket.write(
        `GET ${PATH} HTTP/1.1\r\nHost: ${host}\r\nOrigin: ${stack.edge_url}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
      );
    });
    socket.once("error", reject);
    socket.once("data", (answer: Buffer) => {
      if (answer.toString().startsWith("HTTP/1.1 101")) resolve(socket);
      else reject(new Error(answer.toString().split("\r\n")[0]));
    });
  });
}

/** The same token, with another end: so many seconds from now. */
async function resigned(token: string, seconds: number): Promise<string> {
  const answer = await fetch(stack.emulator_url, {
    method: "POST",
    headers: {
      "Content-Type": "application/x-amz-json-1.1",
      "X-Amz-Target": "secretsmanager.GetSecretValue",
      Authorization: "AWS4-HMAC-SHA256 Credential=test/20270115/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=00",
    },
    body: JSON.stringify({ SecretId: stack.secrets.JWT_GATEWAY_SECRET_ARN }),
  });
  const { SecretString: secret } = (await answer.json()) as { SecretString: string };
  const [head, claims] = token.split(".") as [string, string];
  const read = JSON.parse(Buffer.from(claims, "base64url").toString()) as { iat: number; exp: number };
  const signed = `${head}.${Buffer.from(JSON.stringify({ ...read, exp: read.iat + seconds })).toString("base64url")}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
