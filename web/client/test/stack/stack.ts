/** The running stack: its addresses, its people, and boards that are made for a test. */

import { readFileSync } from "node:fs";

interface Stack {
  edge_url: string;
  emulator_url: string;
  users: Record<"admin" | "editor" | "viewer", { email: string; password: string }>;
  secrets: { JWT_GATEWAY_SECRET_ARN: string };
  fake_upstreams: { sse_url: string; control_url: string };
}

/** `make test-client` names the file. */
export const stack = JSON.parse(readFileSync(process.env.TIDEGATE_STACK ?? "../.tidegate/stack.json", "utf8")) as Stack;

type Json = Record<string, unknown>;

export class Api {
  private constructor(readonly login: string) {}

  static async as(role: keyof Stack["users"]): Promise<Api> {
    const { token } = await send("POST", "/api/auth/login", stack.users[role]);
    return new Api(token as string);
  }

  call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Json> {
    return send(method, path, body, { Authorization: `Bearer ${this.login}`, ...headers });
  }
}

async function send(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Json> {
  const answer = await fetch(new URL(path, stack.edge_url), {
    method,
    headers: { "Content-Type": "application/json", ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${text}`);
  return text ? (JSON.parse(text) as Json) : {};
}

export interface Board {
  id: string;
  shareToken: string;
}

/** A numbered stream, so many a second. */
export function counter(id: string, rate: number): Json {
  const url = `${stack.fake_upstreams.sse_url}?rate=${rate}`;
  return { id, title: id, type: "sse", settings: { url, history: { seconds: 600, everyMs: 1_000 } } };
}

export function document(...datasources: Json[]): Json {
  return { document: { schemaVersion: 1, title: "Client", datasources } };
}

/** A dashboard that whoever has its link may watch. */
export async function shared(editor: Api, ...datasources: Json[]): Promise<Board> {
  const { id } = await editor.call("POST", "/api/dashboards", document(...datasources));
  const { shareToken } = await editor.call("PUT", `/api/dashboards/${id}/visibility`, { visibility: "link" });
  return { id: String(id), shareToken: String(shareToken) };
}
