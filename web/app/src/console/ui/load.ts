/** Loading what a screen shows: what is there, that it is under way, or what went wrong. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { call } from "../api.js";

export interface Loading<T> {
  value: T | undefined;
  error: unknown;
  reload: () => void;
}

/** Loads `path` of the API, and again when it changes. What was loaded stays while it is loaded again. */
export function useLoad<T>(path: string | undefined): Loading<T> {
  const [value, setValue] = useState<T>();
  const [error, setError] = useState<unknown>();
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === undefined) return;
    const stop = new AbortController();
    call<T>("GET", path, { signal: stop.signal }).then(
      (got) => {
        setValue(() => got);
        setError(undefined);
      },
      (fault: unknown) => {
        if (!stop.signal.aborted) setError(fault);
      },
    );
    return () => stop.abort();
  }, [path, turn]);
  return { value, error, reload: useCallback(() => setTurn((before) => before + 1), []) };
}
