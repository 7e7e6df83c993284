/** What admins do in the console: profiles, people, the audit log, operations. */

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launch, open, signIn, type Watched } from "./browser.js";
import { addPerson } from "./console.js";
import { Api, stack, until } from "./stack.js";

let browser: Browser;
let admin: Api;
beforeAll(async () => {
  browser = await launch();
  admin = await Api.as(stack.users.admin);
});
afterAll(() => browser.close());

interface Profile {
  id: string;
  name: string;
  revision: number;
  description: string;
  allowPublicUse: boolean;
  secret: Record<string, string>;
}

const profile = async (path: string, name: string): Promise<Profile | undefined> =>
  ((await admin.call("GET", path)) as Profile[]).find((one) => one.name === name);

async function screen(path: string, expected?: RegExp): Promise<Watched> {
  const watched = await open(browser, {}, expected);
  await signIn(watched.page, stack.users.admin);
  await watched.page.goto(`${stack.edge_url}/#/${path}`);
  return watched;
}

const row = (page: Page, name: string) => page.getByRole("row").filter({ has: page.getByRole("rowheader", { name }) });

test("a credential is made, and somebody else's change costs nothing that was typed", async () => {
  const { page, faults, close } = await screen("credentials", /status of 409/);
  const name = `Credential ${Date.now()}`;
  await page.getByRole("button", { name: "New credential profile" }).click();
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Kind").selectOption("basic");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByText("Fill in the user name and the password.").waitFor();
  await page.getByLabel("User name").fill("u");
  await page.getByLabel("Password").fill("secret-of-the-test");
  await page.getByRole("button", { name: "Create" }).click();
  await row(page, name).waitFor();

  await page.getByRole("button", { name: `Change ${name}` }).click();
  expect(await page.getByLabel("Password").inputValue()).toBe("");
  await page.getByLabel("Description").fill("mine");
  const made = await profile("/credential-profiles", name);
  await admin.call("PUT", `/credential-profiles/${made?.id}`, { name, type: "basic", destinations: [], description: "theirs" }, 1);
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("Not the same: description.").waitFor();
  await page.keyboard.press("Escape");
  expect(await page.getByLabel("Description").inputValue()).toBe("mine");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("button", { name: "Save mine over theirs" }).click();
  await page.getByRole("dialog").first().waitFor({ state: "detached" });
  const saved = await profile("/credential-profiles", name);
  expect([saved?.description, saved?.secret]).toEqual(["mine", { password: "***", username: "***" }]);

  await page.getByRole("button", { name: `Delete ${name}` }).click();
  await page.getByText("Nothing uses it.").waitFor();
  await page.getByRole("button", { name: "Delete it" }).click();
  await row(page, name).waitFor({ state: "detached" });
  expect(faults).toEqual([]);
  await close();
});

test("withdrawing a broker's public use says what it ends, and ends nothing before it is agreed to", async () => {
  // Who is watching is asked of each dashboard.
  const { page, faults, close } = await screen("brokers", /status of 404/);
  const name = `Broker ${Date.now()}`;
  await page.getByRole("button", { name: "New broker profile" }).click();
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByRole("button", { name: "Add a topic filter" }).click();
  await page.keyboard.type("demo/#");
  await page.getByLabel("Viewers without a login").check();
  await page.getByRole("button", { name: "Create" }).click();
  await row(page, name).getByText("not used").waitFor();

  const made = await profile("/broker-profiles", name);
  const datasources = [{ id: "t", title: "T", type: "mqtt", settings: { brokerProfileId: made?.id ?? "", topic: "demo/x" } }];
  const board = await admin.dashboard({ title: `Uses ${name}`, datasources }, "public");
  await page.reload();
  await page.getByRole("button", { name: `What uses ${name}: 1 dashboard` }).click();
  await page.getByRole("link", { name: `Uses ${name}` }).waitFor();
  await page.keyboard.press("Escape");

  await page.getByRole("button", { name: `Change ${name}` }).click();
  await page.getByLabel("Viewers without a login").uncheck();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("One dashboard uses it. It is shown without a login").waitFor();
  await page.getByRole("button", { name: "Cancel" }).last().click();
  expect((await profile("/broker-profiles", name))?.allowPublicUse).toBe(true);
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("button", { name: "Change it" }).click();
  await row(page, name).getByText("members only").waitFor();
  expect((await profile("/broker-profiles", name))?.allowPublicUse).toBe(false);
  await admin.call("DELETE", `/dashboards/${board.id}`);
  await admin.call("DELETE", `/broker-profiles/${made?.id}`);
  expect(faults).toEqual([]);
  await close();
});

test("a person is added, found, changed and deactivated; nobody demotes themselves", async () => {
  const { page, faults, close } = await screen("people");
  const email = `person${Date.now()}@example.com`;
  const own = row(page, stack.users.admin.email);
  await own.waitFor();
  expect([await own.getByRole("combobox").count(), await own.getByRole("button").count()]).toEqual([0, 0]);

  const password = await addPerson(page, email);
  expect(password).toMatch(/^[A-Za-z0-9]{20}$/);
  expect(await page.getByText(password).count()).toBe(0);

  await page.getByLabel("Search").fill(email.slice(2, 14).toUpperCase());
  await own.waitFor({ state: "detached" });
  await row(page, email).waitFor();
  await page.getByLabel(`Role of ${email}`).selectOption("admin");
  await page.getByRole("button", { name: "Change the role" }).click();
  await page.getByText("is an administrator now").waitFor();
  await page.getByLabel(`Role of ${email}`).selectOption("viewer");
  await page.getByText("is signed out everywhere").waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  expect(await page.getByLabel(`Role of ${email}`).inputValue()).toBe("admin");
  await page.getByRole("button", { name: `Deactivate ${email}` }).click();
  await page.getByText("They own no dashboard.").waitFor();
  await page.getByRole("button", { name: "Deactivate", exact: true }).click();
  await page.getByRole("button", { name: `Activate ${email}` }).waitFor();
  expect(faults).toEqual([]);
  await close();
});

test("operations show a failing upstream without a reload, and a full revalidation is audited", async () => {
  const url = stack.fake_upstreams.sse_protected_url ?? "";
  // A stream of its own. One that was refused before waits longer before it is tried again.
  const own = `${url}?test=${Date.now()}`;
  const settings = { bindings: [{ datasourceId: "s", path: "n" }] };
  const board = await admin.dashboard({
    title: "Failing",
    datasources: [{ id: "s", title: "S", type: "sse", settings: { url: own } }],
    panes: [{ id: "p", title: "P", layout: { x: 0, y: 0, w: 4, h: 3 }, widgets: [{ id: "w", type: "value", settings }] }],
  });
  // Another test may have asked for one in this minute.
  const { page, faults, calls, close } = await screen("operations", /status of 429/);
  await page.getByText("Connections", { exact: true }).waitFor();
  const viewer = await page.context().newPage();
  await viewer.goto(`${stack.edge_url}/d/${board.id}`);
  await page.getByRole("row").filter({ hasText: url }).getByText("STREAM_AUTH_FAILED").waitFor();
  const asked = (): number => calls.filter((call) => call === "GET /api/operations/summary").length;
  await until("it is loaded again by itself", () => asked() > 1);

  await page.getByRole("button", { name: "Revalidate everything" }).click();
  await page.getByRole("button", { name: "Check all now" }).click();
  await page.getByText("A full revalidation was asked for").waitFor();
  await page.goto(`${stack.edge_url}/#/audit`);
  const event = page.getByRole("row").filter({ hasText: "operations: full revalidation" }).first();
  await event.getByText(stack.users.admin.email).waitFor();
  await page.getByLabel("Who").fill(stack.users.editor.email);
  await page.getByRole("button", { name: "Show", exact: true }).click();
  const actors = page.locator("tbody tr td:nth-of-type(2)");
  await until("only what the editor did is shown", async () => {
    const shown = await actors.allTextContents();
    return shown.length > 0 && shown.every((text) => text === stack.users.editor.email);
  });
  await admin.call("DELETE", `/dashboards/${board.id}`);
  expect(faults).toEqual([]);
  await close();
});
