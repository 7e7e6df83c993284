/**
 * What a board costs the device that shows it: panes that all change, in headless Chromium.
 *
 * `node web/bench/board.ts <seconds> <panes> <updates a second>` prints one line of JSON. The page is the built one. API and
 * WebSocket are played by this process, through the browser's debugger, so no server takes part.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium, type WebSocketRoute } from "playwright-core";

const [seconds = 600, panes = 50, rate = 10] = process.argv.slice(2).map(Number);
const ORIGIN = "http://board.test";
const DIST = join(import.meta.dirname, "../dist");
const KINDS = ["value", "gauge", "sparkline", "series", "status"];
const TYPES: Record<string, string> = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
/** Of a page that has just begun: what is loaded and compiled once does not count. */
const WARM_S = 10;

const bindings = (index: number): object[] => [{ datasourceId: `d${index}`, path: "v" }];
const board = {
  schemaVersion: 1,
  title: "Fifty",
  columns: 12,
  width: "xl",
  settings: { windowSeconds: 120 },
  datasources: Array.from({ length: panes }, (_, index) => ({ id: `d${index}`, type: "sse", title: `d${index}` })),
  panes: Array.from({ length: panes }, (_, index) => ({
    id: `p${index}`,
    title: `Pane ${index}`,
    layout: { x: (index % 6) * 2, y: Math.floor(index / 6) * 3, w: 2, h: 3 },
    widgets: [
      {
        id: "w",
        type: KINDS[index % KINDS.length],
        settings: { bindings: bindings(index), thresholds: [{ from: 0, state: "ok" }, { from: 60, state: "warn" }] },
      },
    ],
  })),
};

const iso = (ms: number): string => new Date(ms).toISOString();
let sent = 0;

function play(socket: WebSocketRoute): void {
  const subscribed: string[] = [];
  let turn = 0;
  socket.onMessage((text) => {
    const message = JSON.parse(String(text)) as { type: string; requestId?: string; datasourceIds?: string[] };
    const timestamp = iso(Date.now());
    if (message.type === "ping") socket.send(JSON.stringify({ type: "pong", requestId: null, timestamp }));
    for (const datasourceId of message.datasourceIds ?? []) {
      subscribed.push(datasourceId);
      const ack = { type: "ack", requestId: message.requestId, datasourceId, ok: true, timestamp };
      const status = { type: "status", datasourceId, status: "connected", timestamp };
      socket.send(JSON.stringify({ type: "batch", messages: [ack, status] }));
    }
  });
  // As the gateway does: one message in a tenth of a second, with all that is new.
  const timer = setInterval(() => {
    const now = Date.now();
    turn++;
    const messages = subscribed.map((datasourceId, index) => ({
      type: "data",
      datasourceId,
      payload: { v: 50 + 40 * Math.sin(turn / 20 + index) },
      timestamp: iso(now),
      seq: `${String(now).padStart(15, "0")}-${turn}`,
    }));
    sent += messages.length;
    if (messages.length) socket.send(JSON.stringify({ type: "batch", messages }));
  }, 1_000 / rate);
  timer.unref(); // A browser that is closed does not close its sockets here.
  socket.onClose(() => clearInterval(timer));
}

const place = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find((one) => one && existsSync(one));
if (!place) throw new Error("Chromium is not there: `make test-browser` brings it, or name it in CHROMIUM");
const flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: place, args: [...flags, "--no-first-run", "--js-flags=--expose-gc"] });
try {
  const page = await browser.newPage({ viewport: { width: 1920, height: 1080 } });
  await page.routeWebSocket(/gateway\/realtime/, play);
  await page.route("**/*", async (route) => {
    const { pathname } = new URL(route.request().url());
    const now = Date.now();
    const json = (body: unknown): Promise<void> => route.fulfill({ json: body });
    if (pathname.endsWith("/session")) {
      const expires = iso(now + 3_600_000);
      await json({ token: "t", expiresAt: expires, refreshAfter: expires, serverTime: iso(now) });
    } else if (pathname.startsWith("/api/")) {
      const own = { id: "board", title: board.title, visibility: "public", revision: 1, document: board };
      await json({ ...own, canEdit: false, canShare: false, acl: null, ownerId: null, shareToken: null });
    } else {
      const file = pathname.startsWith("/p/") ? "viewer.html" : pathname.slice(1);
      if (!existsSync(join(DIST, file))) return route.fulfill({ status: 404 });
      await route.fulfill({ body: readFileSync(join(DIST, file)), contentType: TYPES[file.split(".").at(-1) ?? ""] ?? "text/plain" });
    }
  });
  await page.addInitScript(() => {
    const tasks: { startTime: number; duration: number }[] = [];
    Object.assign(globalThis, { longTasks: tasks });
    new PerformanceObserver((list) => tasks.push(...list.getEntries())).observe({ type: "longtask" });
  });
  await page.goto(`${ORIGIN}/p/board`);
  await page.locator(`[data-state="live"]`).nth(panes - 1).waitFor();
  await page.waitForTimeout(WARM_S * 1_000);
  const own = await page.context().newCDPSession(page);
  const whole = await browser.newBrowserCDPSession();
  /** When the bench itself made the page wait: not the board's tasks. */
  const forced: [number, number][] = [];
  const clock = (): Promise<number> => page.evaluate(() => performance.now());
  const heap = async (): Promise<number> => {
    const from = await clock();
    await own.send("HeapProfiler.collectGarbage");
    forced.push([from, await clock()]);
    return (await own.send("Runtime.getHeapUsage")).usedSize;
  };
  const cpu = async (): Promise<number> => {
    const { processInfo } = await whole.send("SystemInfo.getProcessInfo");
    return processInfo.filter(({ type }) => type === "renderer").reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  };
  const heaps = [await heap()];
  const begun = await clock();
  const before = { at: Date.now(), cpu: await cpu(), sent };
  const parts = 4;
  for (let part = 1; part <= parts; part++) {
    await page.waitForTimeout((seconds * 1_000) / parts);
    heaps.push(await heap());
  }
  const passed = (Date.now() - before.at) / 1_000;
  const share = ((await cpu()) - before.cpu) / passed;
  const tasks = await page.evaluate(() =>
    (globalThis as unknown as { longTasks: PerformanceEntry[] }).longTasks.map(({ startTime, duration }) => ({ startTime, duration })),
  );
  const boards = tasks.filter(
    ({ startTime, duration }) => startTime >= begun && !forced.some(([from, to]) => startTime < to && startTime + duration > from),
  );
  const longest = Math.max(0, ...boards.map(({ duration }) => duration));
  const mib = heaps.map((bytes) => Number((bytes / 2 ** 20).toFixed(2)));
  const updates = Math.round((sent - before.sent) / passed);
  console.log(JSON.stringify({ seconds: Math.round(passed), panes, updates, cpuShare: share, longestTaskMs: longest, heapMiB: mib }));
} finally {
  await browser.close();
}
