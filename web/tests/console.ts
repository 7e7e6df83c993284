/** What people do in the console, in more than one test. */

import { randomBytes } from "node:crypto";
import type { Browser, Page } from "playwright-core";
import { open, signIn, type Watched } from "./browser.js";
import { stack } from "./stack.js";

/** An admin adds a person. Returns the one-time password, as it is shown once. */
export async function addPerson(page: Page, email: string, role: "admin" | "editor" | "viewer" = "viewer"): Promise<string> {
  await page.goto(`${stack.edge_url}/#/people`);
  await page.getByRole("button", { name: "Add a person" }).click();
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await page.getByLabel("Role", { exact: true }).selectOption(role);
  await page.getByRole("button", { name: "Add", exact: true }).click();
  const password = await page.getByLabel(`One-time password of ${email}`).inputValue();
  await page.getByRole("button", { name: "I have it" }).click();
  return password;
}

/** A browser of its own, in which somebody signs in with a one-time password and is made to change it. */
export async function firstSignIn(browser: Browser, email: string, password: string): Promise<Watched> {
  const watched = await open(browser);
  const { page } = watched;
  const own = randomBytes(12).toString("base64url");
  await signIn(page, { email, password }, "Choose a password");
  await page.getByLabel("One-time password").fill(password);
  await page.getByLabel("New password", { exact: true }).fill(own);
  await page.getByLabel("New password, again").fill(own);
  await page.getByRole("button", { name: "Change password" }).click();
  await page.getByRole("heading", { name: "Dashboards" }).waitFor();
  return watched;
}

/** Saves what is edited. */
export async function save(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.locator('[data-dirty="false"]').waitFor();
}
