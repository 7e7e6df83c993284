/** Where the console is: the part of the address after `#`. */

import { signal } from "@preact/signals";

export const route = signal(read());

function read(): string[] {
  const path = location.hash.replace(/^#\/?/, "").split("?")[0] ?? "";
  return path.split("/").filter(Boolean).map(decodeURIComponent);
}

/** What comes after `?` in the route. */
export function query(): URLSearchParams {
  return new URLSearchParams(location.hash.split("?")[1] ?? "");
}

export function href(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(...parts: string[]): void {
  location.hash = href(...parts);
}

addEventListener("hashchange", () => {
  route.value = read();
});
