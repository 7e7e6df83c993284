/** The stack under test: its addresses, its API, its faults. */

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { BoardDocument, DashboardAnswer } from "../app/src/board/document.js";
import { Proxy } from "../client/test/stack/proxy.js";

interface Person {
  email: string;
  password: string;
}

interface Demo {
  dashboardId: string;
  board: { dashboardId: string; shareToken: string };
}

export interface Stack {
  edge_url: string;
  api_url: string;
  websocket_url: string;
  users: { admin: Person; editor: Person; viewer: Person };
  fake_upstreams: Record<string, string> & { sse_url: string; websocket_url: string; control_url: string };
  demo: { public: Demo; link: Demo; private: Demo; brokers: { public: string; members: string } };
}

const file = process.env.TIDEGATE_STACK;
if (!file) throw new Error("TIDEGATE_STACK is missing: run `make test-browser`, which starts a stack for the tests");
export const stack = JSON.parse(readFileSync(file, "utf8")) as Stack;

/** The API as somebody who is signed in. */
export class Api {
  private constructor(private readonly token: string | undefined) {}

  static async as(person: Person): Promise<Api> {
    const { token } = (await new Api(undefined).call("POST", "/auth/login", { email: person.email, password: person.password })) as {
      token: string;
    };
    return new Api(token);
  }

  async call(method: string, path: string, body?: unknown, revision?: number): Promise<unknown> {
    const answer = await fetch(stack.api_url + path, {
      method,
      headers: {
        "Content-Type": "application/json",
        ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}),
        ...(revision === undefined ? {} : { "If-Match": `"${revision}"` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  async dashboard(document: Partial<BoardDocument>, visibility: "private" | "link" | "public" = "private"): Promise<DashboardAnswer> {
    const whole = { schemaVersion: 1, title: "Test", columns: 12, settings: {}, datasources: [], panes: [], ...document };
    const made = (await this.call("POST", "/dashboards", { document: whole })) as DashboardAnswer;
    if (visibility === "private") return made;
    return (await this.call("PUT", `/dashboards/${made.id}/visibility`, { visibility })) as DashboardAnswer;
  }
}

/** Orders a fault of a fake upstream, or ends it with `none`. */
export async function fault(upstream: "sse" | "websocket" | "mqtt", kind: string, seconds?: number): Promise<void> {
  const body = { upstream, fault: kind, ...(seconds === undefined ? {} : { for: seconds }) };
  const answer = await fetch(stack.fake_upstreams.control_url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`the fault was refused: ${await answer.text()}`);
}

/** A document with one SSE datasource and a value of it. */
export function valueBoard(title: string, query = "rate=5", settings: Record<string, unknown> = {}): Partial<BoardDocument> {
  return {
    title,
    datasources: [
      { id: "sse", title: "Numbers", type: "sse", settings: { url: `${stack.fake_upstreams.sse_url}?${query}`, ...settings } },
    ],
    panes: [
      {
        id: "value",
        title: "Value",
        layout: { x: 0, y: 0, w: 4, h: 3 },
        widgets: [{ id: "w", type: "value", settings: { bindings: [{ datasourceId: "sse", path: "n" }], decimals: 0 } }],
      },
    ],
  };
}

let addresses = 0;

/** A proxy before the edge, which comes from an address of its own: each has its own limits, as each viewer has. */
export function viewerProxy(): Promise<Proxy> {
  addresses += 1;
  return Proxy.start(stack.edge_url, `127.${40 + (process.pid % 200)}.${Math.floor(addresses / 250)}.${(addresses % 250) + 1}`);
}

/** Waits until it is so. What is awaited is a condition; the pause is only how often it is asked. */
export async function until(what: string, is: () => Promise<boolean> | boolean, seconds = 20): Promise<void> {
  const end = Date.now() + seconds * 1_000;
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`within ${seconds} s it was not so: ${what}`);
    await sleep(25);
  }
}
