/** The pictures of the docs, made from the demo boards: `make pictures`. */

import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, test } from "vitest";
import { launch, open, pane, signIn } from "./browser.js";
import { stack, until } from "./stack.js";

const IMAGES = join(import.meta.dirname, "../../docs/images");
const BOARD = `${stack.edge_url}/p/${stack.demo.public.board.dashboardId}`;
/** So many values a chart has at least before its picture is made. */
const SECONDS = 45;

let browser: Browser;
beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

const picture = (page: Page, name: string): Promise<Buffer> => page.screenshot({ path: join(IMAGES, `${name}.png`) });

test(
  "a board, dark and light, on a desk and on a phone",
  async () => {
    const first = await open(browser);
    await first.page.goto(BOARD);
    await pane(first.page, "boiler-temperature", "live").waitFor();
    const began = Date.now();
    await until("the charts have a course", () => Date.now() - began > SECONDS * 1_000, SECONDS + 5);
    await first.close();
    for (const colorScheme of ["dark", "light"] as const) {
      for (const [place, width, height] of [["desk", 1280, 800], ["phone", 390, 844]] as const) {
        const { page, close } = await open(browser, { colorScheme, viewport: { width, height } });
        await page.goto(BOARD);
        await pane(page, "boiler-temperature", "live").waitFor();
        const chart = page.locator(".chart-box");
        await until("the chart is drawn", async () => Number(await chart.getAttribute("data-points")) > 30);
        const lines = page.locator(".spark path");
        await until("the histories are there", () => lines.evaluateAll((all) => all.every((one) => (one.getAttribute("d") ?? "").length > 300)));
        await picture(page, `board-${place}-${colorScheme}`);
        await close();
      }
    }
  },
  180_000,
);

test("the editor, a datasource with its preview, and sharing", async () => {
  const { page, close } = await open(browser, { colorScheme: "dark" });
  await signIn(page, stack.users.editor);
  await page.goto(`${stack.edge_url}/#/dashboards/${stack.demo.link.board.dashboardId}/edit`);
  await until("values are there", async () => (await page.locator(".pane .number").first().textContent()) !== "–");
  await picture(page, "editor");
  await page.getByRole("toolbar").getByRole("button", { name: "Add a datasource" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("Heating plant");
  await dialog.getByLabel("Kind").selectOption("sse");
  await dialog.getByLabel("Address").fill(`${stack.fake_upstreams.sse_url}?rate=5&plant=1`);
  await dialog.getByRole("button", { name: "Show messages" }).click();
  await dialog.locator('.tree .leaf[title="boiler.temperature"]').click({ timeout: 20_000 });
  await picture(page, "datasource");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Share" }).click();
  await page.getByLabel("Address to give away").waitFor();
  await picture(page, "share");
  await close();
});
