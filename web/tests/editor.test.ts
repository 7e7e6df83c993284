/** Building a dashboard: from an empty one to a shared one that others watch, and nothing that was done is lost. */

import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { BoardDocument, DashboardAnswer } from "../app/src/board/document.js";
import { launch, open, pane, shown, signIn } from "./browser.js";
import { save } from "./console.js";
import { Api, stack, until, valueBoard } from "./stack.js";

let browser: Browser;
let editor: Api;

beforeAll(async () => {
  browser = await launch();
  editor = await Api.as(stack.users.editor);
});
afterAll(() => browser.close());

const EDIT = (board: { id: string }): string => `${stack.edge_url}/#/dashboards/${board.id}/edit`;

async function stored(id: string): Promise<BoardDocument> {
  return ((await editor.call("GET", `/dashboards/${id}`)) as DashboardAnswer).document;
}

async function editing(board: { id: string }, expected?: RegExp) {
  const watched = await open(browser, {}, expected);
  await signIn(watched.page, stack.users.editor);
  await watched.page.goto(EDIT(board));
  await watched.page.getByRole("button", { name: "Save" }).waitFor();
  return watched;
}

test("from an empty dashboard to one that is shared by link, with a value that was clicked", async () => {
  const { page, faults, close } = await open(browser);
  await signIn(page, stack.users.editor);
  await page.getByRole("button", { name: "New dashboard" }).click();
  await page.getByLabel("Title").fill("Plant, by hand");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByText("This dashboard is empty.").waitFor();

  await page.getByRole("main").getByRole("button", { name: "Add a datasource" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("Rooms");
  await dialog.getByLabel("Broker profile").selectOption({ label: "IoT Core (public use)" });
  await dialog.getByLabel("Topic", { exact: true }).fill("demo/demo-plant/rooms/+/climate");
  await dialog.getByText("Allowed by demo/#.").waitFor();
  await dialog.getByRole("button", { name: "Show messages" }).click();
  // The value of "temperature" in the last message. A click on it makes its path.
  await dialog.locator('.tree .leaf[title="temperature"]').click({ timeout: 20_000 });
  await dialog.getByText("reads as").waitFor();
  await dialog.getByRole("button", { name: "Use this datasource" }).click();

  await dialog.getByLabel("Title of the pane").fill("Temperature");
  await dialog.getByLabel("Unit").fill("°C");
  expect(await dialog.getByLabel("Path").inputValue()).toBe("temperature");
  await dialog.getByRole("button", { name: "Add pane" }).click();
  await save(page);
  await until("the editor shows it live", async () => (await shown(page, "pane")) > 0);

  await page.getByRole("button", { name: "Share" }).click();
  await page.getByLabel("Everybody with the link").click();
  const address = page.getByLabel("Address to give away");
  await address.waitFor();
  const link = await address.inputValue();
  expect(link).toMatch(/\/s\/[\w-]{32}$/);

  const viewer = await open(browser);
  const began = Date.now();
  await viewer.page.goto(link);
  await pane(viewer.page, "pane", "live").waitFor();
  console.log(`a second browser is live after ${Date.now() - began} ms`);
  expect(await pane(viewer.page, "pane").textContent()).toContain("°C");
  expect(viewer.sentLogin()).toBe(false);
  await viewer.close();
  expect([...faults, ...viewer.faults]).toEqual([]);
  await close();
});

for (const [kind, label] of [
  ["sse", "Server-sent events"],
  ["websocket", "WebSocket"],
] as const) {
  test(`a preview of ${label} shows messages before anything is saved`, async () => {
    const board = await editor.dashboard({ title: `Preview ${kind}` });
    const { page, faults, close } = await editing(board);
    await page.getByRole("toolbar").getByRole("button", { name: "Add a datasource" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Kind").selectOption(kind);
    await dialog.getByLabel("Address").fill(`${stack.fake_upstreams[`${kind}_url`]}?rate=5&plant=1`);
    await dialog.getByRole("button", { name: "Show messages" }).click();
    await dialog.locator('.tree .leaf[title="pumps[0].speed"]').click({ timeout: 20_000 });
    await dialog.getByText("reads as").waitFor();
    expect((await stored(board.id)).datasources).toEqual([]);
    expect(faults).toEqual([]);
    await close();
  });
}

test("what cannot be reached is said in the preview, and nothing is lost by it", async () => {
  const board = await editor.dashboard({ title: "Unreachable" });
  const { page, close } = await editing(board, /status of 4\d\d/);
  await page.getByRole("toolbar").getByRole("button", { name: "Add a datasource" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Kind").selectOption("sse");
  await dialog.getByLabel("Address").fill("http://127.0.0.1:9/stream");
  await dialog.getByRole("button", { name: "Show messages" }).click();
  await dialog.getByRole("alert").waitFor({ timeout: 20_000 });
  expect(await dialog.getByLabel("Address").inputValue()).toBe("http://127.0.0.1:9/stream");
  await close();
});

test("panes are moved, resized, added and deleted by keyboard only, and a reload is equal", async () => {
  const base = valueBoard("By keyboard");
  const [first] = base.panes ?? [];
  const two = { ...first, id: "two", title: "Two", layout: { x: 4, y: 0, w: 4, h: 3 } };
  const board = await editor.dashboard({ ...base, panes: [first, two] as BoardDocument["panes"] });
  const { page, faults, close } = await editing(board);
  await pane(page, "two").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Shift+ArrowRight");
  await page.keyboard.press("Shift+ArrowDown");
  await page.getByText("Column 7, row 1, 5 wide, 4 high").waitFor({ state: "attached" });
  await pane(page, "value").focus();
  await page.keyboard.press("Delete");
  await pane(page, "value").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Add a pane" }).focus();
  await page.keyboard.press("Enter");
  await page.getByLabel("Title of the pane").fill("Three");
  await page.getByRole("button", { name: "Add pane" }).focus();
  await page.keyboard.press("Enter");
  await pane(page, "pane").waitFor();
  await page.keyboard.press("Control+s");
  await page.locator('[data-dirty="false"]').waitFor();
  const saved = await stored(board.id);
  expect(saved.panes.map(({ id, layout: { x, y, w, h } }) => [id, x, y, w, h])).toEqual([
    ["two", 6, 0, 5, 4],
    ["pane", 0, 0, 3, 3],
  ]);
  await page.reload();
  await pane(page, "two").waitFor();
  expect(await page.locator('[data-dirty="false"]').count()).toBe(1);
  expect(await stored(board.id)).toEqual(saved);
  expect(faults).toEqual([]);
  await close();
});

test("everything can be undone, and a draft outlives a reload and the end of a sign-in", async () => {
  const board = await editor.dashboard(valueBoard("Drafts"));
  const before = await stored(board.id);
  const { page, close } = await editing(board, /status of 401/);
  await pane(page, "value").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Shift+ArrowDown");
  await page.locator('[data-dirty="true"]').waitFor();
  await page.reload();
  await page.locator('[data-dirty="true"]').waitFor();
  await page.evaluate(() => localStorage.setItem("tidegate.login", JSON.stringify({ ...JSON.parse(localStorage.getItem("tidegate.login") ?? ""), token: "ended" })));
  await page.reload();
  await page.getByLabel("E-mail").fill(stack.users.editor.email);
  await page.getByLabel("Password").fill(stack.users.editor.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('[data-dirty="true"]').waitFor();
  await page.getByRole("button", { name: "Delete Value" }).click();
  await pane(page, "value").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo" }).click();
  await pane(page, "value").waitFor();
  await page.getByRole("button", { name: "Discard changes" }).click();
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  await page.locator('[data-dirty="false"]').waitFor();
  expect(await stored(board.id)).toEqual(before);
  await close();
});

test("of two editors the second is asked, and loses nothing", async () => {
  const board = await editor.dashboard(valueBoard("Two editors"));
  const one = await editing(board);
  const two = await editing(board, /status of 409/);
  await pane(one.page, "value").focus();
  await one.page.keyboard.press("ArrowRight");
  await save(one.page);
  await pane(two.page, "value").focus();
  await two.page.keyboard.press("Shift+ArrowDown");
  await two.page.getByRole("button", { name: "Save", exact: true }).click();
  const dialog = two.page.getByRole("dialog");
  await dialog.getByText("Somebody else saved this dashboard meanwhile").waitFor();
  expect(await dialog.textContent()).toContain("pane “Value”: not the same");
  await two.page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await two.page.locator('[data-dirty="true"]').waitFor();
  await two.page.getByRole("button", { name: "Save", exact: true }).click();
  await dialog.getByRole("button", { name: "Save mine over theirs" }).click();
  await two.page.locator('[data-dirty="false"]').waitFor();
  expect((await stored(board.id)).panes[0]?.layout).toMatchObject({ x: 0, h: 4 });
  expect([...one.faults, ...two.faults]).toEqual([]);
  await one.close();
  await two.close();
});

test("public use that is withdrawn, and a dashboard that is private again, end what depends on them, and only that", async () => {
  const admin = await Api.as(stack.users.admin);
  const profile = { name: `Withdrawn ${Date.now()}`, transport: "iot-core", topicAllowlist: ["demo/#"], allowPublicUse: true };
  const broker = (await admin.call("POST", "/broker-profiles", profile)) as { id: string; revision: number };
  const base = valueBoard("Withdrawn");
  const rooms = { brokerProfileId: broker.id, topic: "demo/demo-plant/rooms/north/climate", parser: "json" };
  const board = await editor.dashboard(
    {
      ...base,
      datasources: [...(base.datasources ?? []), { id: "mqtt", title: "Room", type: "mqtt", settings: rooms }],
      panes: [
        ...(base.panes ?? []),
        {
          id: "room",
          title: "Room",
          layout: { x: 4, y: 0, w: 4, h: 3 },
          widgets: [{ id: "w", type: "value", settings: { bindings: [{ datasourceId: "mqtt", path: "temperature" }] } }],
        },
      ],
    },
    "public",
  );
  const { page, close } = await open(browser, {}, /status of 40\d/);
  await page.goto(`${stack.edge_url}/p/${board.id}`);
  await pane(page, "value", "live").waitFor();
  await pane(page, "room", "live").waitFor();
  const withdrawn = Date.now();
  await admin.call("PUT", `/broker-profiles/${broker.id}`, { ...profile, allowPublicUse: false }, broker.revision);
  await pane(page, "room", "ended").waitFor();
  console.log(`withdrawn: told after ${Date.now() - withdrawn} ms`);
  const before = await shown(page, "value");
  await until("the other one goes on", async () => (await shown(page, "value")) > before);
  const back = Date.now();
  await editor.call("PUT", `/dashboards/${board.id}/visibility`, { visibility: "private" });
  await page.getByRole("heading", { name: "This dashboard is not public" }).waitFor();
  console.log(`private: told after ${Date.now() - back} ms`);
  await close();
});
