/** Everybody can use the pages: axe finds nothing of WCAG A or AA, and a phone needs no sideways scrolling. */

import axe from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launch, open, pane, signIn } from "./browser.js";
import { stack } from "./stack.js";

const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

async function findings(page: Page): Promise<string[]> {
  const context = page.context();
  // The page's policy lets no script in. So axe goes in as the debugger, which no policy holds.
  const session = await context.newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: `${axe.source}; true` });
  const run = `axe.run(document, ${JSON.stringify({ runOnly: TAGS })}).then(({violations}) => JSON.stringify(
    violations.flatMap(({id, nodes}) => nodes.map(({html, failureSummary}) => id + ": " + html.slice(0, 160) + " " + failureSummary))))`;
  const { result } = await session.send("Runtime.evaluate", { expression: run, awaitPromise: true });
  await session.detach();
  return JSON.parse(String(result.value)) as string[];
}

const fits = (page: Page): Promise<boolean> => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

for (const colorScheme of ["dark", "light"] as const) {
  for (const width of [1280, 360]) {
    describe(`${colorScheme}, ${width} px`, () => {
      test("viewer pages", async () => {
        const { page, faults, close } = await open(browser, { colorScheme, viewport: { width, height: 800 } }, /status of 404/);
        await page.goto(`${stack.edge_url}/p/${stack.demo.public.board.dashboardId}`);
        await pane(page, "boiler-temperature", "live").waitFor();
        expect(await findings(page)).toEqual([]);
        expect(await fits(page)).toBe(true);
        await page.goto(`${stack.edge_url}/s/nothing-like-this`);
        await page.getByRole("heading", { name: "This link does not work any longer" }).waitFor();
        expect(await findings(page)).toEqual([]);
        expect(await fits(page)).toBe(true);
        expect(faults).toEqual([]);
        await close();
      });

      test("the console", async () => {
        const { page, faults, close } = await open(browser, { colorScheme, viewport: { width, height: 800 } });
        await page.goto(stack.edge_url);
        await page.getByRole("button", { name: "Sign in" }).waitFor();
        expect(await findings(page)).toEqual([]);
        await signIn(page, stack.users.admin);
        const screens: [string, string][] = [
          ["dashboards", "Dashboards"],
          ["brokers", "Brokers"],
          ["credentials", "Credentials"],
          ["people", "People"],
          ["audit", "Audit"],
          ["operations", "Operations"],
          ["account", "Your account"],
        ];
        for (const [path, title] of screens) {
          await page.goto(`${stack.edge_url}/#/${path}`);
          await page.locator(`nav [aria-current="page"]:has-text("${title}")`).waitFor();
          await page.locator("main h2").first().waitFor();
          expect(await findings(page), path).toEqual([]);
          expect(await fits(page), path).toBe(true);
        }
        await page.goto(`${stack.edge_url}/#/dashboards/${stack.demo.public.board.dashboardId}/edit`);
        await pane(page, "boiler-temperature").waitFor();
        expect(await findings(page), "the editor").toEqual([]);
        expect(await fits(page), "the editor").toBe(true);
        expect(faults).toEqual([]);
        await close();
      });
    });
  }
}
