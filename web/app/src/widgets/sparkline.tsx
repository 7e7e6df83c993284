/** The course of a value, without axes. */

import { numbers, seriesOf, shownNow, thinned, type XY } from "./binding.js";
import { formatValue } from "./format.js";
import type { WidgetProps } from "./widget.js";

const WIDTH = 200;
const HEIGHT = 36;

/** An SVG path of the points, from `since` to `until`. A gap breaks it. */
export function line(points: readonly XY[], since: number, until: number): string {
  const known = points.flatMap(({ y }) => (y === null ? [] : [y]));
  const least = known.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = known.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const range = most - least || 1;
  let move = true;
  let path = "";
  for (const { at, y } of thinned(points, WIDTH)) {
    if (y === null) {
      move = true;
      continue;
    }
    const x = ((at - since) / (until - since || 1)) * WIDTH;
    const height = HEIGHT - 2 - ((y - least) / range) * (HEIGHT - 4);
    path += `${move ? "M" : "L"}${x.toFixed(1)},${(most === least ? HEIGHT / 2 : height).toFixed(1)}`;
    move = false;
  }
  return path;
}

export function SparklineWidget({ live, settings, windowSeconds }: WidgetProps) {
  return (
    <div class="values">
      {(settings.bindings ?? []).map((binding, index) => {
        live.version(binding.datasourceId);
        const until = live.board.serverTime;
        const points = numbers(seriesOf(live.board, binding)?.samples ?? [], binding, until - windowSeconds * 1_000);
        const now = formatValue(shownNow(live.board, binding, windowSeconds), settings.decimals);
        return (
          <div key={index} class="spark">
            <div class="note">
              {binding.label ? `${binding.label} ` : ""}
              <b>{now}</b> {settings.unit}
            </div>
            <svg class="plot" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
              <path stroke={`var(--series-${(index % 4) + 1})`} vector-effect="non-scaling-stroke" d={line(points, points[0]?.at ?? 0, until)} />
            </svg>
          </div>
        );
      })}
    </div>
  );
}
