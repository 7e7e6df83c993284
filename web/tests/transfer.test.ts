/** Files of others in the browser: what can be carried over is, what cannot is said, and what came in goes out equal. */

import type { Browser, Download, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CLASSIC, VERSION_1 } from "../app/test/freeboard-files.js";
import { launch, open, pane, signIn } from "./browser.js";
import { save } from "./console.js";
import { stack } from "./stack.js";

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

/** Imports it as a file. Returns the report that came before. */
async function imported(page: Page, name: string, file: unknown): Promise<string[]> {
  await page.getByRole("button", { name: "Import" }).click();
  await page.getByLabel("File").setInputFiles({ name, mimeType: "application/json", buffer: Buffer.from(JSON.stringify(file)) });
  const dialog = page.getByRole("dialog");
  await dialog.getByText("What could not be carried over").waitFor();
  const report = await page.locator("[data-report] li").allTextContents();
  await dialog.getByRole("button", { name: "Import" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Export" }).waitFor();
  return report;
}

async function exported(page: Page): Promise<unknown> {
  const [download]: [Download, void] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Export" }).click(),
  ]);
  const chunks: Buffer[] = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}

test("a board of the classic Freeboard is converted, and what could not be is named one by one", async () => {
  const { page, faults, close } = await open(browser);
  await signIn(page, stack.users.editor);
  const report = await imported(page, "Weather station.json", CLASSIC);
  expect(report).toEqual([
    "Datasource “Weather”: check its address and its rights. What followed “?” in it, and a user name, were left out, as they may be secret: put a secret into a credential profile.",
    "Datasource “Old” (JSON): it is not live here. Choose another source for it.",
    "Pane “Air”, widget “widget-2” (indicator): not imported, because its value is code. It is kept as it was.",
    "Pane “Wind”, widget “widget-1” (pointer): not imported, because there is no such widget here. It is kept as it was.",
    "The picture in the header: not imported.",
    "Plug-ins: not imported, as they are code.",
  ]);
  await pane(page, "pane-1").getByRole("heading", { name: "Air" }).waitFor();
  await pane(page, "pane-2").getByRole("heading", { name: "Wind" }).waitFor();
  await pane(page, "pane-1").locator(".gauge").waitFor();
  // A datasource is off until somebody has looked at it, so nothing is connected to.
  const document = (await exported(page)) as { title: string; datasources: { enabled: boolean }[] };
  expect(document.title).toBe("Weather station");
  expect(document.datasources.map(({ enabled }) => enabled)).toEqual([false, false]);
  expect(JSON.stringify(document)).not.toContain("Authorization");
  expect(faults).toEqual([]);
  await close();
});

test("a whole document of Freeboard comes out as it went in, also after it is saved and loaded again", async () => {
  const { page, faults, close } = await open(browser);
  await signIn(page, stack.users.editor);
  const report = await imported(page, "full.json", VERSION_1);
  expect(report).toHaveLength(3);
  await pane(page, "pane_env").waitFor();
  expect(await exported(page)).toEqual(VERSION_1);
  await page.reload();
  await pane(page, "pane_env").waitFor();
  expect(await exported(page)).toEqual(VERSION_1);
  await pane(page, "pane_env").focus();
  await page.keyboard.press("ArrowRight");
  await save(page);
  const moved = structuredClone(VERSION_1);
  for (const one of moved.panes) one.layout.x = 1;
  expect(await exported(page)).toEqual(moved);
  expect(faults).toEqual([]);
  await close();
});
