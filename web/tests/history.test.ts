/** What a page shows of the time when it was not there, and how it comes back. All at once: most of it is waiting. */

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DashboardAnswer } from "../app/src/board/document.js";
import type { Proxy } from "../client/test/stack/proxy.js";
import { launch, open, pane, shown } from "./browser.js";
import { Api, stack, until, valueBoard, viewerProxy } from "./stack.js";

/** A network is away for so long. */
const AWAY_S = 60;
const LONG_MS = 180_000;

let browser: Browser;
let editor: Api;
beforeAll(async () => {
  browser = await launch();
  editor = await Api.as(stack.users.editor);
});
afterAll(() => browser.close());

/** A number each second, as a value, as a chart and as a line. `name`: so that each board has a stream of its own. */
function chartBoard(name: string): Promise<DashboardAnswer> {
  const base = valueBoard(name, `rate=1&test=${name}${Date.now()}`, { history: { seconds: 600, everyMs: 1_000 } });
  const bindings = [{ datasourceId: "sse", path: "n" }];
  const more = (["series", "sparkline"] as const).map((type, index) => ({
    id: type,
    title: type,
    layout: { x: 4 + index * 4, y: 0, w: 4, h: 4 },
    widgets: [{ id: "w", type, settings: { bindings, windowSeconds: 600 } }],
  }));
  return editor.dashboard({ ...base, panes: [...(base.panes ?? []), ...more] }, "link");
}

const points = async (page: Page): Promise<number> => Number(await page.locator(".chart-box").getAttribute("data-points"));

/** The parts of the line: two of them have a gap between. */
async function parts(page: Page): Promise<number> {
  const line = await page.locator(".spark path").getAttribute("d");
  return (line ?? "").split("M").length - 1;
}

async function watching(board: DashboardAnswer) {
  const proxy = await viewerProxy();
  const watched = await open(browser, {}, /ERR_|WebSocket|status of 50\d/, proxy.url);
  const { page, faults } = watched;
  // A page whose clock can jump, as that of a device that slept.
  await page.clock.install();
  await page.goto(`${proxy.url}/s/${board.shareToken}`);
  await pane(page, "value", "live").waitFor();
  const close = async (): Promise<void> => {
    expect(faults).toEqual([]);
    await watched.close();
    await proxy.stop();
  };
  return { page, proxy, close };
}

/** Keeps each number that the pane shows from now on. */
function record(page: Page): Promise<void> {
  return page.evaluate(() => {
    const all: number[] = [];
    const number = (): number => Number(document.querySelector('[data-pane="value"] .number')?.textContent?.replace(/[^\d.-]/g, ""));
    const keep = (): void => void (Number.isFinite(number()) && all.push(number()));
    new MutationObserver(keep).observe(document.body, { subtree: true, childList: true, characterData: true });
    keep();
    Object.assign(window, { recorded: all });
  });
}

/** Live again, with a newer value, and no older one was shown in between. */
async function liveAgain(page: Page, what: string, before: number, since: number): Promise<void> {
  await page.locator('[data-live="live"]').waitFor({ timeout: 60_000 });
  await pane(page, "value", "live").waitFor();
  console.log(`${what}: live again after ${Date.now() - since} ms`);
  await until("it shows newer values", async () => (await shown(page, "value")) > before, 60);
  const all = await page.evaluate(() => (window as unknown as { recorded: number[] }).recorded);
  expect(all).toEqual([...all].sort((one, other) => one - other));
}

describe.concurrent("what a page was not there for", () => {
  test("a chart that is opened late shows what was before", async () => {
    const board = await chartBoard("late");
    const early = await watching(board);
    await until("there is a past", async () => (await points(early.page)) >= 15, 60);
    const late = await watching(board);
    const first = await shown(late.page, "value");
    await until("points of before are drawn", async () => {
      const drawn = await points(late.page);
      const since = (await shown(late.page, "value")) - first + 1;
      return drawn - since >= 10;
    });
    await early.close();
    await late.close();
  }, LONG_MS);

  for (const others of [true, false]) {
    test(`${AWAY_S} s without a network, ${others ? "others watch" : "nobody watches"}: the gap is filled or marked`, async () => {
      const board = await chartBoard(others ? "filled" : "marked");
      const one = await watching(board);
      const other = others ? await watching(board) : undefined;
      await until("both have a past", async () => (await points(one.page)) >= 5, 60);
      await record(one.page);
      await one.page.context().setOffline(true);
      one.proxy.drop();
      const began = Date.now();
      await one.page.locator('[data-live="offline"]').waitFor();
      const before = await shown(one.page, "value");
      await until("the time is over", () => Date.now() - began > AWAY_S * 1_000, AWAY_S + 5);
      await one.page.context().setOffline(false);
      const back = Date.now();
      await liveAgain(one.page, `${AWAY_S} s away`, before, back);
      // Filled: as many points as somebody has who was there all the time. Marked: the line is broken.
      await until("the gap is filled or marked", async () => {
        const all = other ? await points(other.page) : AWAY_S;
        return (await points(one.page)) >= all * 0.9 || (!other && (await parts(one.page)) > 1);
      });
      console.log(`${AWAY_S} s away: ${await points(one.page)} points, of ${other ? await points(other.page) : "nobody else"}, in ${await parts(one.page)} parts`);
      await one.close();
      await other?.close();
    }, LONG_MS);
  }

  const OUTAGES: readonly (readonly [string, (proxy: Proxy, page: Page) => Promise<void>])[] = [
    [
      "a sleep of 90 s",
      async (proxy, page) => {
        proxy.freeze();
        await page.clock.fastForward(90_000);
      },
    ],
    [
      "a half-open socket",
      async (proxy, page) => {
        proxy.freeze();
        // It asks after 45 seconds without a word; the answer does not come within 3.
        await page.clock.fastForward(46_000);
      },
    ],
    ["a connection that the server cuts", async (proxy) => proxy.drop()],
  ];
  for (const [what, happens] of OUTAGES) {
    test(`${what}: live again, and no older value is shown`, async () => {
      const board = await editor.dashboard(valueBoard(what, "rate=5"), "link");
      const { page, proxy, close } = await watching(board);
      await until("a value is there", async () => (await shown(page, "value")) >= 0);
      await record(page);
      const before = await shown(page, "value");
      const handshakes = proxy.count("/gateway/realtime");
      const since = Date.now();
      await happens(proxy, page);
      await until("it connects again", () => proxy.count("/gateway/realtime") > handshakes, 60);
      await liveAgain(page, what, before, since);
      await close();
    }, LONG_MS);
  }
});
