/** A number between its least and its most. */

import { judge, shownNow, sorted } from "./binding.js";
import { formatNumber, formatValue } from "./format.js";
import { colourOf, StateLabel } from "./parts.js";
import type { WidgetProps } from "./widget.js";

const R = 50;
const CENTRE = { x: 60, y: 60 };

function point(share: number): string {
  const angle = Math.PI * (1 - share);
  return `${(CENTRE.x + R * Math.cos(angle)).toFixed(1)},${(CENTRE.y - R * Math.sin(angle)).toFixed(1)}`;
}

function arc(from: number, to: number): string {
  return `M${point(from)} A${R},${R} 0 0 1 ${point(to)}`;
}

export function GaugeWidget({ live, settings, windowSeconds }: WidgetProps) {
  const binding = settings.bindings?.[0];
  if (!binding) return null;
  live.version(binding.datasourceId);
  const least = settings.min ?? 0;
  const most = Math.max(settings.max ?? 100, least + Number.EPSILON);
  const value = shownNow(live.board, binding, windowSeconds);
  const share = (number: number): number => Math.min(1, Math.max(0, (number - least) / (most - least)));
  const judged = judge(value, settings);
  const text = formatValue(value, settings.decimals);
  const unit = settings.unit ? ` ${settings.unit}` : "";
  return (
    <>
      <svg class="gauge" viewBox="0 0 120 76" role="img" aria-label={`${text}${unit}, of ${least} to ${most}`}>
        <path class="track" d={arc(0, 1)} />
        {typeof value === "number" ? <path class="arm" d={arc(0, share(value))} stroke={colourOf(judged?.state)} /> : null}
        {sorted(settings.thresholds).map(({ from, state }) =>
          from > least && from < most ? (
            <path key={from} class="mark" d={arc(share(from), Math.min(1, share(from) + 0.012))} stroke={`var(--${state})`} />
          ) : null,
        )}
        <text class="main" x="60" y="56" text-anchor="middle">
          {text}
          {unit}
        </text>
        <text x="10" y="74" text-anchor="middle">
          {formatNumber(least)}
        </text>
        <text x="110" y="74" text-anchor="middle">
          {formatNumber(most)}
        </text>
      </svg>
      <div class="centred">
        <StateLabel judged={judged} />
      </div>
    </>
  );
}
