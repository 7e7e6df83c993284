/** The whole way: from an administrator with a one-time password to a board that strangers watch, and no longer do. */

import { readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launch, open, pane, shown, signIn } from "./browser.js";
import { addPerson, firstSignIn, save } from "./console.js";
import { stack, until } from "./stack.js";

/** What a pane of each kind shows once a value is there. All are bound to the value that was clicked. */
const PANES: readonly (readonly [label: string, shows: string])[] = [
  ["Value", ".number"],
  ["Gauge", ".gauge"],
  ["Time series", ".chart-box[data-points]"],
  ["Table", "table tbody td"],
  ["Status", ".statuses b"],
];

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

async function makeBroker(page: Page, name: string): Promise<void> {
  await page.goto(`${stack.edge_url}/#/credentials`);
  await page.getByRole("button", { name: "New credential profile" }).click();
  await page.getByLabel("Name", { exact: true }).fill(`${name}, login`);
  await page.getByLabel("Kind").selectOption("basic");
  await page.getByLabel("User name").fill(stack.fake_upstreams.username ?? "");
  await page.getByLabel("Password").fill(stack.fake_upstreams.secret ?? "");
  await page.getByLabel("Viewers without a login").check();
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("rowheader", { name: `${name}, login` }).waitFor();

  await page.goto(`${stack.edge_url}/#/brokers`);
  await page.getByRole("button", { name: "New broker profile" }).click();
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Kind").selectOption("external");
  await page.getByLabel("Address").fill(stack.fake_upstreams.mqtts_url ?? "");
  await page.getByLabel("Credential", { exact: true }).selectOption({ label: `${name}, login` });
  await page.getByRole("button", { name: "Add a topic filter" }).click();
  await page.getByLabel("topic filter 1", { exact: true }).fill("protected/#");
  await page.getByLabel("Viewers without a login").check();
  await page.getByLabel("Certificates of the broker's authority").fill(readFileSync(stack.fake_upstreams.ca ?? "", "utf8"));
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("rowheader", { name }).waitFor();
}

/** The editor's datasource, by profile and topic; its path is clicked in the preview. The pane's dialog is open then. */
async function makeDatasource(page: Page, broker: string): Promise<void> {
  await page.getByRole("main").getByRole("button", { name: "Add a datasource" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("Protected");
  await dialog.getByLabel("Broker profile").selectOption({ label: broker });
  await dialog.getByLabel("Topic", { exact: true }).fill("protected/temperature");
  await dialog.getByText("Allowed by protected/#.").waitFor();
  await dialog.getByRole("button", { name: "Show messages" }).click();
  await dialog.locator('.tree .leaf[title="n"]').click({ timeout: 20_000 });
  await dialog.getByText("reads as").waitFor();
  await dialog.getByRole("button", { name: "Use this datasource" }).click();
}

async function makePane(page: Page, label: string): Promise<void> {
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Title of the pane").fill(label);
  await dialog.getByLabel("Shown as").selectOption({ label });
  await dialog.getByLabel("Path").fill("n");
  await dialog.getByRole("button", { name: "Add pane" }).click();
  await dialog.waitFor({ state: "detached" });
}

/** Every pane shows something; `state`: that it says of itself, which only viewers' pages do. */
async function allShow(page: Page, state?: "live"): Promise<void> {
  for (const [index, [, shows]] of PANES.entries()) {
    await pane(page, index ? `pane-${index + 1}` : "pane", state).locator(shows).first().waitFor();
  }
  await until("the value is a number", async () => (await shown(page, "pane")) >= 0);
}

test(
  "an administrator sets a broker up, an editor builds a board on it, strangers watch it, and a new link ends that",
  async () => {
    const unique = Date.now();
    const broker = `Plant broker ${unique}`;
    const installer = await open(browser);
    await signIn(installer.page, stack.users.admin);
    const adminEmail = `admin${unique}@example.com`;
    const admin = await firstSignIn(browser, adminEmail, await addPerson(installer.page, adminEmail, "admin"));
    await installer.close();
    await makeBroker(admin.page, broker);
    const email = `editor${unique}@example.com`;
    const editor = await firstSignIn(browser, email, await addPerson(admin.page, email, "editor"));

    const { page } = editor;
    await page.getByRole("button", { name: "New dashboard" }).first().click();
    await page.getByLabel("Title").fill("The whole way");
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByText("This dashboard is empty.").waitFor();
    await makeDatasource(page, broker);
    expect(await page.getByRole("dialog").getByLabel("Path").inputValue()).toBe("n");
    for (const [index, [label]] of PANES.entries()) {
      if (index) await page.getByRole("button", { name: "Add a pane" }).click();
      await makePane(page, label);
    }
    await save(page);
    await allShow(page);

    await page.getByRole("button", { name: "Share" }).click();
    await page.getByLabel("Everybody with the link").click();
    const address = page.getByLabel("Address to give away");
    await address.waitFor();
    const viewer = await open(browser, {}, /status of 404/);
    const began = Date.now();
    await viewer.page.goto(await address.inputValue());
    await pane(viewer.page, "pane", "live").waitFor();
    console.log(`a second browser is live after ${Date.now() - began} ms`);
    await allShow(viewer.page, "live");
    const first = await shown(viewer.page, "pane");
    await until("the second browser's value moves", async () => (await shown(viewer.page, "pane")) > first);

    await page.getByRole("button", { name: "Replace the link" }).click();
    const rotated = Date.now();
    await page.getByRole("dialog").last().getByRole("button", { name: "Replace the link" }).click();
    await viewer.page.getByRole("heading", { name: "This link does not work any longer" }).waitFor();
    console.log(`a replaced link: told after ${Date.now() - rotated} ms`);
    await viewer.page.getByText("Ask the dashboard's owner for a new one").waitFor();
    const minted = (): number => viewer.calls.filter((call) => call.endsWith("/session")).length;
    const before = minted();
    await viewer.page.waitForTimeout(10_000); // Nothing happens: there is no condition to await.
    expect(minted()).toBe(before);
    expect(viewer.sentLogin()).toBe(false);
    await page.keyboard.press("Escape");
    await allShow(page);
    expect([...admin.faults, ...editor.faults, ...viewer.faults]).toEqual([]);
    for (const one of [admin, editor, viewer]) await one.close();
  },
  120_000,
);
