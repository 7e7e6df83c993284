/** The examples of README.md, run as they stand there. */

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { launch } from "../../../tests/browser.js";
import { Proxy } from "./proxy.js";
import { Api, counter, shared, stack, type Board } from "./stack.js";

const client = fileURLToPath(new URL("../..", import.meta.url));
/** Where an `import` finds the package by its name. */
const place = join(client, "../node_modules/.examples");

let editor: Api;
let board: Board;

beforeAll(async () => {
  execFileSync(join(client, "../node_modules/.bin/tsc"), ["-p", "tsconfig.build.json"], { cwd: client });
  mkdirSync(place, { recursive: true });
  editor = await Api.as("editor");
  board = await shared(editor, counter("counter", 4));
});

afterAll(async () => {
  if (board) await editor.call("DELETE", `/api/dashboards/${board.id}`);
  rmSync(place, { recursive: true });
});

function block(language: string): string {
  const found = readFileSync(join(client, "README.md"), "utf8").matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"));
  const blocks = [...found].map(([, text]) => text as string);
  expect(blocks).toHaveLength(1);
  return blocks[0] as string;
}

const until = (condition: () => unknown): Promise<unknown> => vi.waitUntil(condition, { timeout: 30_000, interval: 20 });

test("in Node: values are printed, and the end says why", async () => {
  const own = await shared(editor, counter("counter", 4));
  const file = join(place, "example.mjs");
  writeFileSync(file, block("js"));
  const env = { ...process.env, EDGE: stack.edge_url, DASHBOARD: own.id, SHARE: own.shareToken };
  const script: ChildProcess = spawn(process.execPath, [file], { env });
  let said = "";
  for (const stream of [script.stdout, script.stderr]) stream?.on("data", (text: Buffer) => (said += text.toString()));
  const over = new Promise((resolve) => script.once("exit", resolve));
  await until(() => said.split("\n").length > 4);
  expect(said).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z \{"n":\d+,/);
  await editor.call("POST", `/api/dashboards/${own.id}/share-token:rotate`);
  expect(await over).toBe(0);
  expect(said).toMatch(/over: Stream authorization was revoked\n$/);
  await editor.call("DELETE", `/api/dashboards/${own.id}`);
});

test("on a page of another origin: the value is shown, and its state", async () => {
  const origin = new URL(String(process.env.TIDEGATE_PAGE_ORIGIN));
  const page = block("html");
  const files: Server = createServer((asked, answer) => {
    const name = asked.url ?? "/";
    const script = name.startsWith("/client/");
    answer.setHeader("Content-Type", script ? "text/javascript" : "text/html; charset=utf-8");
    answer.end(script ? readFileSync(join(client, "dist", name.slice("/client/".length))) : page);
  });
  await new Promise<void>((resolve) => files.listen(Number(origin.port), origin.hostname, resolve));
  const proxy = await Proxy.start(stack.edge_url, "127.0.0.1");
  proxy.preflightFor = origin.origin;
  const browser = await launch();
  try {
    const tab = await browser.newPage();
    const errors: string[] = [];
    tab.on("pageerror", (error) => errors.push(String(error)));
    const { id: dashboard, shareToken: share } = board;
    await tab.goto(`${origin.origin}/#${new URLSearchParams({ url: proxy.url, dashboard, share })}`);
    await tab.locator("#state", { hasText: "live" }).waitFor();
    await tab.locator("#value", { hasText: '"n":' }).waitFor();
    expect(await tab.locator("#state").textContent()).toMatch(/^live {2}\d s old$/);
    expect(errors).toEqual([]);
  } finally {
    await browser.close();
    await proxy.stop();
    files.close();
  }
});
