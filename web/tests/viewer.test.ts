/** The pages for watching: live without a sign-in, honest about what is old, ended when the right is gone. */

import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { DashboardAnswer } from "../app/src/board/document.js";
import { launch, open, pane, shown, signIn } from "./browser.js";
import { Api, fault, stack, until, valueBoard } from "./stack.js";

let browser: Browser;
let editor: Api;

beforeAll(async () => {
  browser = await launch();
  editor = await Api.as(stack.users.editor);
});
afterAll(() => browser.close());
afterEach(async () => {
  await fault("sse", "none");
});

const LINK = (board: DashboardAnswer): string => `${stack.edge_url}/s/${board.shareToken}`;

test("a board by link is live within three seconds, and moves", async () => {
  const board = await editor.dashboard(valueBoard("By link"), "link");
  const { page, faults, sentLogin, close } = await open(browser);
  const began = Date.now();
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  const first = await shown(page, "value");
  console.log(`live after ${Date.now() - began} ms`);
  await until("the value moves", async () => (await shown(page, "value")) > first);
  expect(await page.title()).toBe("By link");
  expect(await page.locator('meta[name="robots"]').getAttribute("content")).toContain("noindex");
  expect(sentLogin()).toBe(false);
  expect(faults).toEqual([]);
  await close();
});

test("a link that is replaced ends its viewers, who are told why and ask for nothing more", async () => {
  const board = await editor.dashboard(valueBoard("Rotated"), "link");
  const { page, faults, calls, close } = await open(browser, {}, /status of 404/);
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  const rotated = Date.now();
  await editor.call("POST", `/dashboards/${board.id}/share-token:rotate`);
  await page.getByRole("heading", { name: "This link does not work any longer" }).waitFor();
  console.log(`told after ${Date.now() - rotated} ms`);
  const before = calls.filter((call) => call.endsWith("/session")).length;
  await page.waitForTimeout(10_000); // Nothing happens: there is no condition to await.
  expect(calls.filter((call) => call.endsWith("/session")).length).toBe(before);
  expect(faults).toEqual([]);
  await close();
});

test("a silent source is stale after its time, with words and a sign, and live again by itself", async () => {
  const board = await editor.dashboard(valueBoard("Stale", "rate=5", { staleAfterSeconds: 3 }), "link");
  const { page, faults, close } = await open(browser);
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  await fault("sse", "stall");
  await pane(page, "value", "stale").waitFor();
  expect(await pane(page, "value").locator("[data-age]").textContent()).toMatch(/◌ stale · \d+ s/);
  const old = await shown(page, "value");
  await fault("sse", "none");
  await pane(page, "value", "live").waitFor();
  await until("it shows newer values", async () => (await shown(page, "value")) > old);
  expect(faults).toEqual([]);
  await close();
});

test("a source that drops is in error, with the reason, and live again by itself", async () => {
  const board = await editor.dashboard(valueBoard("Dropped"), "link");
  const { page, faults, close } = await open(browser);
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  await fault("sse", "refuse");
  await fault("sse", "drop", 8);
  await pane(page, "value", "error").waitFor();
  expect(await pane(page, "value").textContent()).toContain("Upstream");
  await fault("sse", "none");
  await pane(page, "value", "live").waitFor({ timeout: 40_000 });
  expect(faults).toEqual([]);
  await close();
});

test("a device without a network says so, and goes on within five seconds, never with an older value", async () => {
  const board = await editor.dashboard(valueBoard("Offline"), "link");
  const { page, close } = await open(browser, {}, /./);
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  await page.context().setOffline(true);
  await page.locator('[data-live="offline"]').waitFor();
  const before = await shown(page, "value");
  await page.context().setOffline(false);
  const back = Date.now();
  await page.locator('[data-live="live"]').waitFor();
  console.log(`live again after ${Date.now() - back} ms`);
  await until("it shows newer values", async () => {
    const now = await shown(page, "value");
    expect(now).toBeGreaterThanOrEqual(before);
    return now > before;
  });
  await close();
});

test("who is signed in as somebody is a stranger to a link all the same", async () => {
  const board = await editor.dashboard(valueBoard("Strangers"), "link");
  const { page, sentLogin, faults, close } = await open(browser);
  await signIn(page, stack.users.viewer);
  const own = await open(browser);
  await own.close();
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  expect(sentLogin()).toBe(true); // The console did, the page by link did not:
  const sent: string[] = [];
  page.on("request", (request) => {
    if (request.headers().authorization?.startsWith("Bearer") && !request.url().includes("/history")) sent.push(request.url());
  });
  await page.reload();
  await pane(page, "value", "live").waitFor();
  expect(sent).toEqual([]);
  expect(faults).toEqual([]);
  await close();
});

test("a saved document is drawn anew at once, without a reload", async () => {
  const board = await editor.dashboard(valueBoard("Before"), "link");
  const { page, faults, close } = await open(browser);
  await page.goto(LINK(board));
  await pane(page, "value", "live").waitFor();
  const document = { ...board.document, title: "After" };
  await editor.call("PUT", `/dashboards/${board.id}`, { document }, board.revision);
  await page.getByRole("heading", { name: "After" }).waitFor();
  await pane(page, "value", "live").waitFor();
  expect(faults).toEqual([]);
  await close();
});

test("a kiosk has no way to the editor, and fills the screen", async () => {
  const board = await editor.dashboard(valueBoard("Kiosk"), "public");
  const { page, faults, calls, close } = await open(browser);
  await page.goto(`${stack.edge_url}/p/${board.id}?kiosk=1`);
  await pane(page, "value", "live").waitFor();
  const box = await pane(page, "value").boundingBox();
  expect(box?.height).toBeGreaterThan(700);
  expect(calls.every((call) => !call.includes("/auth/"))).toBe(true);
  expect(faults).toEqual([]);
  await close();
});

test("what a viewer is sent of the document has no address, no topic and no profile", async () => {
  const { page, close } = await open(browser);
  const bodies: string[] = [];
  page.on("response", async (answer) => {
    if (answer.url().includes("/api/share/") && answer.status() === 200) bodies.push(await answer.text());
  });
  await page.goto(`${stack.edge_url}/s/${stack.demo.link.board.shareToken}`);
  await pane(page, "north").waitFor();
  const [body = ""] = bodies;
  expect(body).toContain('"panes"');
  expect(body).not.toContain("demo-plant");
  expect(body).not.toContain("://");
  expect(body).not.toContain(stack.demo.brokers.public);
  await close();
});
