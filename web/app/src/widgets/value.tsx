/** One value, large, with the state that it has reached. */

import { judge, shownNow } from "./binding.js";
import { formatValue } from "./format.js";
import { StateLabel } from "./parts.js";
import type { WidgetProps } from "./widget.js";

export function ValueWidget({ live, settings, windowSeconds }: WidgetProps) {
  const bindings = settings.bindings ?? [];
  return (
    <div class="values">
      {bindings.map((binding, index) => {
        live.version(binding.datasourceId);
        const value = shownNow(live.board, binding, windowSeconds);
        const text = formatValue(value, settings.decimals);
        return (
          <div key={index} class="value-one">
            {bindings.length > 1 || binding.label ? <span class="note">{binding.label ?? binding.path}</span> : null}
            <div class={`number ${typeof value === "number" || text.length < 12 ? "" : "long"}`}>
              {text}
              {settings.unit && value !== undefined ? <small>{settings.unit}</small> : null}
            </div>
            <StateLabel judged={judge(value, settings)} />
          </div>
        );
      })}
    </div>
  );
}
