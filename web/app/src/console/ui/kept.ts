/** What is typed into a form, kept until it is saved or thrown away: also when a login ends in the middle of it.
 *
 * It is kept in memory only, because it may hold a secret, and for the person who typed it. */

import { useState } from "preact/hooks";
import { login } from "../api.js";

const typed = new Map<string, object>();

export interface Kept<F> {
  fields: F;
  set: <K extends keyof F>(name: K, value: F[K]) => void;
  replace: (fields: F) => void;
  /** Whether it was typed before, and is shown again. */
  again: boolean;
  forget: () => void;
}

export function useKept<F extends object>(name: string, initial: F): Kept<F> {
  const [key] = useState(() => `${login.value?.user.id ?? ""} ${name}`);
  const [again] = useState(() => typed.has(key));
  const [fields, setFields] = useState<F>(() => (typed.get(key) as F | undefined) ?? initial);
  const replace = (after: F): void => {
    typed.set(key, after);
    setFields(after);
  };
  return {
    fields,
    set: (field, value) => replace({ ...((typed.get(key) as F | undefined) ?? fields), [field]: value }),
    replace,
    again,
    forget: () => void typed.delete(key),
  };
}
