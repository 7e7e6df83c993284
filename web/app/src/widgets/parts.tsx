/** Small parts that widgets share. */

import type { StateName } from "../board/document.js";
import type { Judged } from "./binding.js";

/** Colour is never the only sign: each state has a shape of its own. */
export const SHAPES: Record<StateName, string> = { ok: "●", warn: "▲", critical: "■" };

export function StateLabel({ judged }: { judged: Judged | undefined }) {
  if (!judged) return null;
  return (
    <span class={`state ${judged.state}`}>
      <span aria-hidden="true">{SHAPES[judged.state]}</span>
      {judged.label}
    </span>
  );
}

export function colourOf(state: StateName | undefined, index = 0): string {
  return state && state !== "ok" ? `var(--${state})` : `var(--series-${(index % 4) + 1})`;
}
