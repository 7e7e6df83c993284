/** Calls of the API with the login of this browser. */

import { signal } from "@preact/signals";
import { keepLogin, readLogin, type Login } from "../login.js";

/** The API refused, or could not be reached. */
export class ApiError extends Error {
  override name = "ApiError";
  constructor(
    /** 0 when there was no answer. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfterMs?: number,
    readonly currentRevision?: number,
  ) {
    super(message);
  }
}

export const login = signal<Login | undefined>(readLogin());

const CALL_MS = 30_000;
/** A login is renewed when less than this part of its life is left. */
const RENEW_AT = 0.5;

export function setLogin(made: Login | undefined): void {
  keepLogin(made);
  login.value = made;
}

// Another tab signed in or out.
addEventListener("storage", () => {
  login.value = readLogin();
});

interface Answer<T> {
  body: T;
  etag: string | null;
}

export interface Ask {
  body?: unknown;
  revision?: number;
  signal?: AbortSignal;
}

/** Calls the API. Throws `ApiError`. A login that has ended is forgotten, and the screen becomes the sign-in. */
export async function call<T>(method: string, path: string, ask: Ask = {}): Promise<T> {
  return (await send<T>(method, path, ask)).body;
}

export async function send<T>(method: string, path: string, { body, revision, signal: stop }: Ask = {}): Promise<Answer<T>> {
  const headers: Record<string, string> = {};
  const token = login.value?.token;
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (revision !== undefined) headers["If-Match"] = `"${revision}"`;
  const limit = AbortSignal.timeout(CALL_MS);
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(`/api${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      credentials: "omit",
      cache: "no-store",
      signal: stop ? AbortSignal.any([stop, limit]) : limit,
    });
    text = await answer.text();
  } catch (error) {
    if (stop?.aborted) throw error;
    throw new ApiError(0, "network", "The server could not be reached. Nothing is known of whether it was done.");
  }
  const parsed = parse(text);
  if (answer.ok) return { body: parsed as T, etag: answer.headers.get("ETag") };
  const error = (parsed as { error?: Partial<ApiError> } | undefined)?.error ?? {};
  if (answer.status === 401 && token && token === login.value?.token && path !== "/auth/login") setLogin(undefined);
  throw new ApiError(
    answer.status,
    error.code ?? "refused",
    error.message ?? `The server answered ${answer.status}`,
    error.retryAfterMs,
    error.currentRevision,
  );
}

function parse(text: string): unknown {
  try {
    return text ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

export async function signIn(email: string, password: string): Promise<void> {
  setLogin(await call<Login>("POST", "/auth/login", { body: { email, password } }));
}

/** Ends this login at the server too. Without an answer it is only forgotten here. */
export async function signOut(): Promise<void> {
  await call("POST", "/auth/logout").catch(() => undefined);
  setLogin(undefined);
}

/** Renews the login while the console is open. A login that is used does not run out in the middle of work. */
export function keepRenewing(): void {
  let askedAt = Date.now();
  setInterval(() => {
    const kept = login.value;
    if (!kept || document.visibilityState === "hidden") return;
    const left = Date.parse(kept.expiresAt) - Date.now();
    const passed = Date.now() - askedAt;
    if (left > passed * (1 / RENEW_AT - 1) && left > 10 * 60_000) return;
    askedAt = Date.now();
    call<Login>("POST", "/auth/renew").then(setLogin, () => undefined);
  }, 60_000);
}

/** What went wrong, for people: the message of the API, or one that says that nothing is known. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
