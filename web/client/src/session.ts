/** Asking the API for a dashboard's session token. */

import { Refused } from "./errors.js";
import type { Point, Session } from "./frames.js";

/** How long one call of the API may take, in milliseconds. The API itself gives up before 30 seconds. */
const CALL_MS = 30_000;

/** Where a session token comes from. */
export interface Source {
  /** The origin of the edge, such as `https://live.example.com`. */
  url: string;
  dashboardId: string;
  /** Of a viewer by link. */
  shareToken?: string | undefined;
  /** The login of a member, asked for at each call. Never set it on a page for viewers without a login. */
  login?: (() => string | undefined) | undefined;
  fetch?: typeof fetch | undefined;
}

interface Fault {
  code?: string;
  message?: string;
  retryAfterMs?: number;
}

/**
 * Calls the API, and returns the JSON of its answer.
 *
 * @throws Refused with the code and text of the API. 5xx, 429 and a lost network are retryable, other answers are not.
 */
export async function call(source: Source, path: string, init: RequestInit = {}): Promise<unknown> {
  const ask = source.fetch ?? fetch;
  let answer: Response;
  let body: Fault & { error?: Fault };
  try {
    answer = await ask(new URL(path, source.url), {
      ...init,
      credentials: "omit",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(CALL_MS),
    });
    body = (await answer.json()) as typeof body;
  } catch {
    throw new Refused("network", "Server not reached", true);
  }
  if (answer.ok) return body;
  // API Gateway itself says no more than `message`.
  const { code = "refused", message, retryAfterMs } = body.error ?? body;
  throw new Refused(code, message, answer.status >= 500 || answer.status === 429, retryAfterMs);
}

const path = ({ dashboardId }: Source, what: string): string =>
  `/api/dashboards/${encodeURIComponent(dashboardId)}/${what}`;

const bearer = (token: string | undefined): Record<string, string> => (token ? { Authorization: `Bearer ${token}` } : {});

/** A new session token for all datasources of the dashboard. Throws `Refused`. */
export async function mint(source: Source, currentToken?: string): Promise<Session> {
  return (await call(source, path(source, "session"), {
    method: "POST",
    headers: { "Content-Type": "application/json", ...bearer(source.login?.()) },
    body: JSON.stringify({ shareToken: source.shareToken, currentToken }),
  })) as Session;
}

/** The newest points of a history, at most 2,000, the newest first. Throws `Refused`. */
export async function readHistory(
  source: Source,
  token: string | undefined,
  datasourceId: string,
  topic?: string,
): Promise<Point[]> {
  const query = new URLSearchParams(topic === undefined ? { datasourceId } : { datasourceId, topic });
  const answer = await call(source, path(source, `history?${query}`), { headers: bearer(token) });
  return (answer as { points: Point[] }).points;
}

/** What the server would say to a connect and a subscribe now. */
export interface Verdicts {
  connect: Verdict | null;
  subscribe: Verdict | null;
}

interface Verdict {
  state: "allowed" | "refused" | "unavailable";
  /** A code of the protocol. This and the fields below are null when it is allowed. */
  errorCode: string;
  message: string;
  retryable: boolean | null;
  retryAfterMs: number | null;
}

/** Asks whether a connect, and with a token a subscribe, would be refused now. Throws `Refused`. */
export async function wouldRefuse(source: Source, token?: string): Promise<Verdicts> {
  const query = token ? `?dashboardId=${encodeURIComponent(source.dashboardId)}` : "";
  return (await call(source, `/api/realtime${query}`, { headers: bearer(token) })) as Verdicts;
}
