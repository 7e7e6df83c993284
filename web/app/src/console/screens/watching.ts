/** How many watch each dashboard of a list now. */

import { useEffect, useState } from "preact/hooks";
import { call } from "../api.js";

export interface Watching {
  connections: number;
  more: boolean;
}

/** Dashboards that are counted by themselves. A user may ask 30 times in a minute, and other pages ask too. */
const MOST = 20;

/** What is known of each dashboard, by its id. Each is asked for once, one after the other; who may not ask is told nothing. */
export function useWatching(ids: readonly string[]): ReadonlyMap<string, Watching> {
  const [known, setKnown] = useState<ReadonlyMap<string, Watching>>(new Map());
  const [asked] = useState(() => new Set<string>());
  const key = ids.join();
  useEffect(() => {
    const stop = new AbortController();
    void count(stop.signal);
    return () => stop.abort();
  }, [key]);

  async function count(signal: AbortSignal): Promise<void> {
    for (const id of ids) {
      if (asked.has(id) || asked.size >= MOST) continue;
      asked.add(id);
      try {
        const found = await call<Watching>("GET", `/dashboards/${encodeURIComponent(id)}/viewers`, { signal });
        setKnown((before) => new Map(before).set(id, found));
      } catch {
        if (!signal.aborted) continue; // Not theirs to know, or not to be counted now: the list is good without it.
        asked.delete(id);
        return;
      }
    }
  }
  return known;
}
