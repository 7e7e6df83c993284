/** E-mails of people by their ids, of the first thousand people there are. */

import { useEffect, useState } from "preact/hooks";
import { call } from "../../api.js";
import type { Person } from "./changes.js";

const PAGE = 200;
const PAGES = 5;

export interface Names {
  /** The e-mail; undefined when it is not known. */
  of: (id: string | null) => string | undefined;
  idOf: (email: string) => string | undefined;
  emails: readonly string[];
}

export function useNames(): Names {
  const [known, setKnown] = useState<ReadonlyMap<string, string>>(new Map());
  useEffect(() => {
    const stop = new AbortController();
    void load(stop.signal).then(setKnown, () => undefined);
    return () => stop.abort();
  }, []);
  const ids = new Map([...known].map(([id, email]) => [email.toLowerCase(), id]));
  return {
    of: (id) => (id ? known.get(id) : undefined),
    idOf: (email) => ids.get(email.toLowerCase()),
    emails: [...known.values()],
  };
}

async function load(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  let cursor: string | null = null;
  for (let page = 0; page < PAGES; page++) {
    const next: string = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const answer: { users: Person[]; cursor: string | null } = await call("GET", `/users?limit=${PAGE}${next}`, { signal });
    for (const { id, email } of answer.users) found.set(id, email);
    cursor = answer.cursor;
    if (!cursor) break;
  }
  return found;
}
