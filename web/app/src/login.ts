/** The login of this browser: kept by the console, and used by the pages of members. Never by pages without a login. */

const KEY = "tidegate.login";

export interface Login {
  token: string;
  expiresAt: string;
  user: { id: string; email: string; role: "admin" | "editor" | "viewer"; active: boolean; mustChangePassword: boolean };
}

export function readLogin(): Login | undefined {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "null") as Login | null;
    return kept && typeof kept.token === "string" ? kept : undefined;
  } catch {
    return undefined;
  }
}

export function keepLogin(login: Login | undefined): void {
  try {
    if (login) localStorage.setItem(KEY, JSON.stringify(login));
    else localStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing asks again after a reload.
  }
}
