/** What a viewer page's address asks for. */

export interface Place {
  /** `public`: everybody. `link`: who has the token. `member`: who has a login and a right. */
  kind: "public" | "link" | "member" | "unknown";
  /** The dashboard's id, or the share token. */
  key: string;
  /** Without the bar, filling the screen: for wall screens and frames. */
  kiosk: boolean;
  theme: string | null;
}

const KINDS = { p: "public", s: "link", d: "member" } as const;

export function placeOf({ pathname, search }: Pick<Location, "pathname" | "search">): Place {
  const [, letter = "", key = ""] = /^\/([psd])\/([^/]+)\/?$/.exec(pathname) ?? [];
  const query = new URLSearchParams(search);
  return {
    kind: Object.hasOwn(KINDS, letter) ? KINDS[letter as keyof typeof KINDS] : "unknown",
    key: decode(key),
    kiosk: query.get("kiosk") === "1",
    theme: query.get("theme"),
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
