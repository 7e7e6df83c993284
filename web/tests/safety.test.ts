/** What comes from sources and editors is text. Pages obey a strict policy, and are framed only where they may be. */

import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { launch, open, pane, signIn } from "./browser.js";
import { Api, stack, valueBoard } from "./stack.js";

const MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>';

let browser: Browser;
let editor: Api;
const servers: Server[] = [];

beforeAll(async () => {
  browser = await launch();
  editor = await Api.as(stack.users.editor);
});
afterEach(closeServers);
afterAll(async () => {
  await browser.close();
});

async function closeServers(): Promise<void> {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A page of another origin that frames an address. */
async function framer(address: string, port = 0): Promise<string> {
  return served(`<iframe id="f" src="${address}" width="800" height="500"></iframe>`, port);
}

/** A page of another origin. */
async function served(html: string, port: number, headers: Record<string, string> = {}): Promise<string> {
  const server = createServer((_, answer) => {
    for (const [name, value] of Object.entries({ ...headers, "Content-Type": "text/html" })) answer.setHeader(name, value);
    answer.end(`<!doctype html><title>framer</title>${html}`);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

test("markup in titles, labels, texts and units is shown as text", async () => {
  const base = valueBoard(`T ${MARKUP}`.slice(0, 200));
  const [first] = base.panes ?? [];
  const bindings = [{ datasourceId: "sse", path: "n", label: MARKUP }];
  const kinds = ["value", "gauge", "sparkline", "series", "table", "status", "text"];
  const board = await editor.dashboard(
    {
      ...base,
      panes: kinds.map((type, index) => ({
        id: type,
        title: MARKUP,
        layout: { x: (index % 3) * 4, y: Math.floor(index / 3) * 3, w: 4, h: 3 },
        widgets: [
          {
            id: type,
            type,
            title: MARKUP,
            settings: { bindings, unit: MARKUP, text: MARKUP, thresholds: [{ from: 0, state: "warn", label: MARKUP }] },
          },
        ],
      })),
    },
    "link",
  );
  expect(first).toBeDefined();
  const { page, faults, close } = await open(browser);
  await page.goto(`${stack.edge_url}/s/${board.shareToken}`);
  await pane(page, "value", "live").waitFor();
  await page.locator(".chart canvas").waitFor();
  expect(await page.locator(".pane img, .pane script").count()).toBe(0);
  expect(await page.title()).toContain("<img");
  expect(await pane(page, "text").textContent()).toContain(MARKUP);
  expect(faults).toEqual([]);
  await signIn(page, stack.users.editor);
  await page.goto(`${stack.edge_url}/#/dashboards/${board.id}/edit`);
  await pane(page, "value").waitFor();
  expect(await page.locator(".pane img, .pane script").count()).toBe(0);
  expect(faults).toEqual([]);
  await close();
});

test("every page has the headers that keep it safe", async () => {
  for (const path of ["/", "/p/x", "/s/x", "/d/x", "/nothing/here"]) {
    const { headers } = await fetch(stack.edge_url + path);
    const policy = headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("require-trusted-types-for 'script'");
    expect(policy).not.toContain("unsafe");
    expect(headers.get("referrer-policy")).toBe("no-referrer");
    expect(headers.get("cache-control")).toBe("no-cache");
    expect(headers.get("x-robots-tag")).toContain("noindex");
  }
});

test("a viewer page is framed by the named origin and by no other, the console by none", async () => {
  const viewer = `${stack.edge_url}/p/${stack.demo.public.board.dashboardId}`;
  const port = Number(process.env.TIDEGATE_FRAMER_PORT);
  expect(port, "make test-browser names the origin that may frame").toBeGreaterThan(0);
  const { page, close } = await open(browser, {}, /./);
  const framed = async (from: string): Promise<boolean> => {
    await page.goto(from);
    const inner = page.frameLocator("#f").locator("#root > *");
    return inner.first().waitFor({ timeout: 5_000 }).then(
      () => true,
      () => false,
    );
  };
  expect(await framed(await framer(viewer, port))).toBe(true);
  await closeServers();
  expect(await framed(await framer(viewer))).toBe(false);
  await closeServers();
  expect(await framed(await framer(stack.edge_url, port))).toBe(false);
  await close();
});

test("the frame of the docs shows the board, and what the docs say of its attributes is so", async () => {
  const docs = readFileSync(new URL("../../docs/start/embed-a-dashboard.md", import.meta.url), "utf8");
  const [, html = ""] = /^```html\n([^]*?)^```$/m.exec(docs) ?? [];
  const address = "https://live.example.com/p/DASHBOARD_ID";
  expect(html).toContain(address);
  const frame = html.replace(address, `${stack.edge_url}/p/${stack.demo.public.board.dashboardId}`);
  const port = Number(process.env.TIDEGATE_FRAMER_PORT);
  const { page, close } = await open(browser, { colorScheme: "dark" }, /./);
  const shown = async (markup: string, headers: Record<string, string> = {}): Promise<boolean> => {
    await page.goto(await served(markup, port, headers));
    const first = page.frameLocator("iframe").locator('.kiosk [data-state="live"]').first();
    const seen = await first.waitFor({ timeout: 5_000 }).then(
      () => true,
      () => false,
    );
    await closeServers();
    return seen;
  };
  const asked = page.waitForRequest((request) => request.url().includes("/p/"));
  expect(await shown(frame)).toBe(true);
  expect((await asked).headers().referer).toBeUndefined();
  expect(await page.frameLocator("iframe").locator("html").getAttribute("data-theme")).toBe("light");
  expect(await shown(frame, { "Content-Security-Policy": `frame-src ${stack.edge_url}` })).toBe(true);
  expect(await shown(frame, { "Content-Security-Policy": "frame-src https://live.example.com" })).toBe(false);
  expect(await shown(frame, { "Cross-Origin-Embedder-Policy": "require-corp" })).toBe(false);
  expect(await shown(frame.replace(" allow-same-origin", ""))).toBe(false);
  expect(await shown(frame.replace("allow-scripts ", ""))).toBe(false);
  await close();
});
