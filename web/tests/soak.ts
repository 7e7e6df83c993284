/**
 * Many viewers watch one dashboard for a while: nobody is refused, all stay live, and no value comes late. `make soak`.
 *
 * Some are pages in Chromium. The others are the client of `web/client` in this process. Each comes from an address of its
 * own, as viewers do.
 */

import { Dashboard } from "@tidegate/client";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { BoardDocument, DashboardAnswer } from "../app/src/board/document.js";
import type { Proxy } from "../client/test/stack/proxy.js";
import { launch, open, type Watched } from "./browser.js";
import { Api, stack, until, viewerProxy } from "./stack.js";

const [minutes, viewers, pages] = (process.env.TIDEGATE_SOAK ?? "").split(",").map(Number) as [number, number, number];
if (![minutes, viewers, pages].every((given) => given > 0) || pages > viewers) {
  throw new Error("allowed: numbers above 0 for MINUTES, VIEWERS and PAGES, and no more pages than viewers");
}
/** Each numbered stream has a value in two seconds, each room in three. */
const STREAMS = ["sse", "websocket"] as const;
const NUMBERED = 7;
const ROOMS = ["north", "south", "attic"];
const IDS = [...Array.from({ length: NUMBERED }, (_, index) => `number-${index}`), ...ROOMS];
/** How old the newest value of a datasource may be when it is looked at. */
const OLD_MS = 15_000;
const LOOK_S = 5;
/** How long it may take until a viewer is live: the first one waits until everything has started. */
const LIVE_S = 30;
const SAID_S = 60;

/** `wildcard`: the topic of the rooms of the demo boards. */
function document(wildcard: string): Partial<BoardDocument> {
  const numbered = Array.from({ length: NUMBERED }, (_, index) => {
    const type = STREAMS[index % 2] as (typeof STREAMS)[number];
    const url = type === "sse" ? stack.fake_upstreams.sse_url : stack.fake_upstreams.websocket_url;
    return { id: `number-${index}`, title: `Number ${index}`, type, settings: { url: `${url}?interval_ms=2000&soak=${index}` } };
  });
  const rooms = ROOMS.map((room) => {
    const topic = wildcard.replace("+", room);
    return { id: room, title: room, type: "mqtt" as const, settings: { brokerProfileId: stack.demo.brokers.public, topic } };
  });
  return {
    title: "Soak",
    datasources: [...numbered, ...rooms],
    panes: IDS.map((id, index) => ({
      id,
      title: id,
      layout: { x: (index % 4) * 3, y: Math.floor(index / 4) * 3, w: 3, h: 3 },
      widgets: [
        {
          id: "w",
          type: "value",
          settings: { bindings: [{ datasourceId: id, path: index < NUMBERED ? "n" : "temperature" }] },
        },
      ],
    })),
  };
}

/** A viewer without a page. */
class Client {
  readonly faults: string[] = [];
  values = 0;
  /** Numbers that gave way to newer ones, as they do when the machine does not keep up. */
  conflated = 0;
  readonly #newest = new Map<string, { n: number; at: number }>();
  #live = false;

  constructor(
    readonly dashboard: Dashboard,
    readonly proxy: Proxy,
  ) {
    dashboard.subscribe((changed) => this.#changed(changed));
    dashboard.start();
  }

  #changed(changed: ReadonlySet<string>): void {
    const { state, reason } = this.dashboard;
    if (this.#live && state !== "live") this.faults.push(`the connection is ${state}: ${reason ?? "no reason"}`);
    if (reason !== undefined) this.faults.push(`refused or lost: ${reason}`);
    this.#live = state === "live";
    for (const id of changed) this.#take(id);
  }

  #take(id: string): void {
    const datasource = this.dashboard.datasource(id);
    const said = datasource?.reason;
    if (said !== undefined) this.faults.push(`${id} is ${datasource?.state}: ${said}`);
    const samples = datasource?.newest?.samples ?? [];
    const before = this.#newest.get(id);
    const known = samples.findLastIndex(({ at, value }) => before && at <= before.at && !(number(value) > before.n));
    for (const sample of samples.slice(known + 1)) {
      const n = number(sample.value);
      const last = this.#newest.get(id);
      if (last && n <= last.n) this.faults.push(`${id}: ${n} follows ${last.n}`);
      if (last && n > last.n) this.conflated += n - last.n - 1;
      this.#newest.set(id, { n, at: sample.at });
      this.values += 1;
    }
  }

  /** What is not as it should be now. */
  wrong(): string[] {
    return IDS.flatMap((id) => {
      const state = this.dashboard.datasource(id)?.state;
      const age = this.dashboard.serverTime - (this.#newest.get(id)?.at ?? Number.NEGATIVE_INFINITY);
      if (state !== "live") return [`${id} is ${state}`];
      return age > OLD_MS ? [`${id}: the newest value is ${Math.round(age / 1_000)} s old`] : [];
    });
  }
}

const number = (value: unknown): number => (value as { n?: number } | null)?.n ?? Number.NaN;

let browser: Browser;
let board: DashboardAnswer;
beforeAll(async () => {
  browser = await launch();
  const editor = await Api.as(stack.users.editor);
  const { document: demo } = (await editor.call("GET", `/dashboards/${stack.demo.link.board.dashboardId}`)) as DashboardAnswer;
  const rooms = demo.datasources.find(({ id }) => id === "rooms");
  board = await editor.dashboard(document(String(rooms?.settings?.topic)), "link");
});
afterAll(() => browser.close());

interface Screen extends Watched {
  proxy: Proxy;
  refused: string[];
}

async function screen(): Promise<Screen> {
  const proxy = await viewerProxy();
  const watched = await open(browser, {}, /^$/, proxy.url);
  const refused: string[] = [];
  watched.page.on("response", (answer) => {
    if (answer.status() >= 400) refused.push(`${answer.status()} ${new URL(answer.url()).pathname}`);
  });
  await watched.page.goto(`${proxy.url}/s/${board.shareToken}`);
  return { ...watched, proxy, refused };
}

async function client(): Promise<Client> {
  const proxy = await viewerProxy();
  const datasources = IDS.map((id) => ({ id }));
  const options = { url: proxy.url, dashboardId: board.id, shareToken: board.shareToken as string, datasources };
  return new Client(new Dashboard(options), proxy);
}

test(
  `${viewers} viewers of ${IDS.length} datasources for ${minutes} minutes`,
  async () => {
    const began = Date.now();
    const seconds = (): number => Math.round((Date.now() - began) / 1_000);
    const screens: Screen[] = [];
    const clients: Client[] = [];
    const livePanes = async (): Promise<number[]> =>
      Promise.all(screens.map(({ page }) => page.locator('[data-pane][data-state="live"]').count()));
    const wrong = async (): Promise<string[]> => [
      ...clients.flatMap((one) => one.wrong()),
      ...(await livePanes()).filter((live) => live !== IDS.length).map((live) => `${live} panes of a page are live`),
    ];
    const faults = (): string[] => [
      ...clients.flatMap((one) => one.faults),
      ...screens.flatMap((one) => [...one.faults, ...one.refused]),
    ];
    // One after the other: the emulator starts a process for each call at once, which is not what is looked at here.
    for (let here = 0; here < viewers; here += 1) {
      if (here < pages) screens.push(await screen());
      else clients.push(await client());
      await until(`viewer ${here + 1} is live`, async () => (await wrong()).length === 0, LIVE_S).catch(async (error: unknown) => {
        throw new Error(`${error}\n${[...faults(), ...(await wrong())].slice(0, 30).join("\n")}`);
      });
    }
    console.log(`${viewers} viewers are live, ${seconds()} s after the first came`);
    const since = seconds();
    const say = async (): Promise<void> => {
      const values = clients.reduce((sum, one) => sum + one.values, 0);
      const live = (await livePanes()).join(" ");
      const conflated = clients.reduce((sum, one) => sum + one.conflated, 0);
      const counted = `${String(values).padStart(7)} values at clients, ${conflated} conflated`;
      console.log(`${String(seconds()).padStart(5)} s  ${counted}  live panes: ${live}`);
    };
    for (let said = since; seconds() < since + minutes * 60; ) {
      await screens[0]?.page.waitForTimeout(LOOK_S * 1_000); // Time passes: there is no condition to await.
      expect(faults()).toEqual([]);
      expect(await wrong()).toEqual([]);
      if (seconds() - said >= SAID_S) {
        said = seconds();
        await say();
      }
    }
    await say();
    for (const one of clients) one.dashboard.stop();
    await Promise.all(screens.map((one) => one.close()));
    await Promise.all([...clients, ...screens].map(({ proxy }) => proxy.stop()));
  },
  (minutes * 60 + viewers * LIVE_S) * 1_000,
);
