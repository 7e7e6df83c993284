/** Getting the document of a dashboard, as this viewer is shown it. */

import { Refused } from "@tidegate/client";
import type { DashboardAnswer } from "../board/document.js";
import { readLogin } from "../login.js";
import type { Place } from "./place.js";

const CALL_MS = 30_000;

export interface Loaded {
  answer: DashboardAnswer;
  etag: string | null;
}

/** The dashboard; null when it is as it was with `etag`. Throws `Refused`. */
export async function load(place: Place, etag: string | null): Promise<Loaded | null> {
  const path =
    place.kind === "link"
      ? `/api/share/${encodeURIComponent(place.key)}`
      : `/api/dashboards/${encodeURIComponent(place.key)}`;
  const headers: Record<string, string> = {};
  if (etag) headers["If-None-Match"] = etag;
  const login = loginOf(place);
  if (login) headers.Authorization = `Bearer ${login}`;
  let answer: Response;
  let body: unknown;
  try {
    answer = await fetch(path, {
      headers,
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(CALL_MS),
    });
    if (answer.status === 304) return null;
    body = await answer.json();
  } catch {
    throw new Refused("network", "The server could not be reached", true);
  }
  if (answer.ok) return { answer: body as DashboardAnswer, etag: answer.headers.get("ETag") };
  const { code = "refused", message = "", retryAfterMs } = (body as { error?: Partial<ErrorBody> }).error ?? {};
  throw new Refused(code, message, answer.status >= 500 || answer.status === 429, retryAfterMs);
}

interface ErrorBody {
  code: string;
  message: string;
  retryAfterMs: number;
}

/** The login of a member's page. The pages by link and of public dashboards send none, whoever is signed in. */
export function loginOf(place: Place): string | undefined {
  return place.kind === "member" ? readLogin()?.token : undefined;
}
