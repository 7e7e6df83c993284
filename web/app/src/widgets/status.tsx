/** What a value means: a state with its shape, its colour and its word. */

import { judge, shownNow } from "./binding.js";
import { formatValue } from "./format.js";
import { SHAPES } from "./parts.js";
import type { WidgetProps } from "./widget.js";

export function StatusWidget({ live, settings, windowSeconds }: WidgetProps) {
  const bindings = settings.bindings ?? [];
  return (
    <ul class="statuses">
      {bindings.map((binding, index) => {
        live.version(binding.datasourceId);
        const value = shownNow(live.board, binding, windowSeconds);
        const judged = judge(value, settings);
        return (
          <li key={index}>
            <span class={`lamp ${judged?.state ?? ""}`} aria-hidden="true">
              {judged ? SHAPES[judged.state] : "○"}
            </span>
            <span class="grow">{binding.label ?? binding.path ?? binding.datasourceId}</span>
            <b class={`state ${judged?.state ?? ""}`}>{judged?.label ?? formatValue(value, settings.decimals)}</b>
          </li>
        );
      })}
    </ul>
  );
}
