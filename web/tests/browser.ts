/** Chromium, and pages that tell of every fault: errors of the console, violations of the policy, foreign requests. */

import { existsSync } from "node:fs";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { stack } from "./stack.js";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function launch(): Promise<Browser> {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("Chromium is not there: `make test-browser` brings it, or name it in CHROMIUM");
  return chromium.launch({ executablePath, args: QUIET });
}

export interface Watched {
  page: Page;
  /** What no page may do. Empty when all is well. */
  faults: string[];
  /** Paths of the API that it called, with the method. */
  calls: string[];
  /** Whether a sign-in token was ever sent. */
  sentLogin: () => boolean;
  close: () => Promise<void>;
}

/**
 * A page of its own, as of another browser. `expected`: faults that the test itself causes. `origin`: that it may speak to.
 */
export async function open(
  browser: Browser,
  options: BrowserContextOptions = {},
  expected: RegExp = /^$/,
  origin: string = stack.edge_url,
): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const faults: string[] = [];
  const calls: string[] = [];
  let login = false;
  const tell = (text: string): void => {
    if (!expected.test(text)) faults.push(text);
  };
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") tell(`console ${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => tell(`error: ${error.message}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== origin && url.protocol !== "blob:" && url.protocol !== "ws:") tell(`foreign request: ${url.href}`);
    if (url.pathname.startsWith("/api/")) calls.push(`${request.method()} ${url.pathname}`);
    if (request.headers().authorization && !url.pathname.endsWith("/history") && url.pathname !== "/api/realtime") login = true;
  });
  return { page, faults, calls, sentLogin: () => login, close: () => context.close() };
}

/** Signs in. `heading`: of the screen that comes then. */
export async function signIn(page: Page, person: { email: string; password: string }, heading = "Dashboards"): Promise<void> {
  await page.goto(stack.edge_url);
  await page.getByLabel("E-mail").fill(person.email);
  await page.getByLabel("Password").fill(person.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: heading }).waitFor();
}

/** The state of a pane: live, stale, error, ended, connecting. */
export function pane(page: Page, id: string, state?: string) {
  return page.locator(`[data-pane="${id}"]${state ? `[data-state="${state}"]` : ""}`);
}

/** The number that a pane shows. NaN before any. */
export async function shown(page: Page, id: string): Promise<number> {
  const text = await pane(page, id).locator(".number").first().textContent();
  return Number((text ?? "").replace(/[^\d.-]/g, "") || Number.NaN);
}
