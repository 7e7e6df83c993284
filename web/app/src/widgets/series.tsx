/** A chart over time. The chart library is loaded with the first one. */

import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Sample } from "@tidegate/client";
import type uPlot from "uplot";
import type { Live } from "../board/live.js";
import type { Binding, WidgetSettings } from "../board/document.js";
import { shownTheme } from "../style/theme.js";
import { about, numbers, shownNow, sorted, thinned, type XY } from "./binding.js";
import { formatNumber, formatTime, formatValue } from "./format.js";
import { SHAPES } from "./parts.js";
import type { WidgetProps } from "./widget.js";

const MOST_LINES = 12;
const SECOND_MS = 1_000;

interface Size {
  width: number;
  height: number;
}

interface Line {
  label: string;
  binding: Binding;
  samples: readonly Sample[];
}

/** One line for each binding; for each topic, where a binding names none of several. */
function linesOf(live: Live, bindings: readonly Binding[]): Line[] {
  const lines: Line[] = [];
  for (const binding of bindings) {
    const all = [...(live.board.datasource(binding.datasourceId)?.series.values() ?? [])];
    const series = all.filter(({ topic }) => about(binding, topic));
    for (const one of series.length ? series : [undefined]) {
      const name = binding.label ?? binding.path ?? binding.datasourceId;
      const topic = series.length > 1 ? (one?.topic?.split("/").slice(-2).join("/") ?? "") : "";
      lines.push({
        label: [topic, name].filter(Boolean).join(" "),
        binding: one?.topic === undefined ? binding : { ...binding, topic: one.topic },
        samples: one?.samples ?? [],
      });
    }
  }
  return lines;
}

/** The lines on one axis of times. Null breaks a line, undefined leaves it whole. */
export function aligned(lines: readonly (readonly XY[])[]): [number[], ...(number | null | undefined)[][]] {
  const [only] = lines;
  if (only && lines.length === 1) return [only.map(({ at }) => at / 1_000), only.map(({ y }) => y)];
  const times = [...new Set(lines.flatMap((points) => points.map(({ at }) => at)))].sort((a, b) => a - b);
  const places = new Map(times.map((time, index) => [time, index]));
  const columns = lines.map((points) => {
    const column = new Array<number | null | undefined>(times.length).fill(undefined);
    for (const { at, y } of points) column[places.get(at) as number] = y;
    return column;
  });
  return [times.map((time) => time / 1_000), ...columns];
}

function token(name: string, element: Element): string {
  return getComputedStyle(element).getPropertyValue(name).trim() || "currentColor";
}

function options(box: HTMLElement, { width, height }: Size, lines: Line[], settings: WidgetSettings, timeZone: string | undefined): uPlot.Options {
  const grid = { stroke: token("--line", box), width: 1 };
  const axis = { stroke: token("--faint", box), grid, ticks: { show: false }, font: `11px ${token("--font", box)}` };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => bounds(low, high, settings) } },
    axes: [
      {
        ...axis,
        size: 24,
        space: 80,
        values: (_, times) => {
          const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
          return times.map((time) => formatTime(time * 1_000, timeZone, span < 300));
        },
      },
      { ...axis, size: 48, values: (_, values) => values.map((value) => formatNumber(value)) },
    ],
    series: [
      {},
      ...lines.map(({ label }, index) => ({
        label,
        stroke: token(`--series-${(index % 4) + 1}`, box),
        width: 1.5,
        dash: index < 4 ? [] : [6, 4],
        spanGaps: false,
        points: { show: false },
      })),
    ],
    hooks: { drawAxes: [thresholdBands(settings, box)] },
  };
}

function bounds(low: number | null, high: number | null, { min, max }: WidgetSettings): [number, number] {
  const least = min ?? low ?? 0;
  const most = max ?? high ?? 1;
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  return [min ?? least - room, max ?? most + room];
}

function thresholdBands(settings: WidgetSettings, box: HTMLElement): (plot: uPlot) => void {
  const all = sorted(settings.thresholds);
  const bands = all.map(({ from, state }, index) => ({ from, state, top: all[index + 1]?.from, colour: token(`--${state}`, box) }));
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.globalAlpha = 0.1;
    for (const { from, state, top, colour } of bands) {
      if (state === "ok") continue;
      const y = top === undefined ? bbox.top : Math.max(bbox.top, plot.valToPos(top, "y", true));
      const bottom = Math.min(bbox.top + bbox.height, plot.valToPos(from, "y", true));
      ctx.fillStyle = colour;
      if (bottom > y) ctx.fillRect(bbox.left, y, bbox.width, bottom - y);
    }
    ctx.restore();
  };
}

export function SeriesWidget({ live, settings, windowSeconds, timeZone }: WidgetProps) {
  const place = useRef<HTMLDivElement>(null);
  const bindings = settings.bindings ?? [];
  const key = JSON.stringify([settings, timeZone]);

  useEffect(() => {
    const box = place.current;
    if (!box) return;
    let plot: uPlot | undefined;
    let shape = "";
    let over = false;
    let Plot: typeof uPlot | undefined;
    // Asked of the box at each drawing, it would make the browser lay the page out each time.
    let size: Size | undefined;
    void Promise.all([import("uplot"), import("uplot/dist/uPlot.min.css")]).then(([module]) => {
      Plot = module.default;
      draw();
    });

    function draw(): void {
      if (over || !Plot || !box || !size?.width || document.visibilityState === "hidden") return;
      const { width } = size;
      const until = live.board.serverTime;
      const lines = linesOf(live, bindings).slice(0, MOST_LINES);
      const points = lines.map(({ samples, binding }) => numbers(samples, binding, until - windowSeconds * 1_000));
      const data = aligned(points.map((all) => thinned(all, width))) as uPlot.AlignedData;
      const wanted = JSON.stringify([lines.map(({ label }) => label), shownTheme()]);
      if (!plot || wanted !== shape) {
        plot?.destroy();
        plot = new Plot(options(box, size, lines, settings, timeZone), data, box);
        shape = wanted;
      } else plot.setData(data, false);
      box.dataset.points = String(data[0].length);
      const first = data[0][0] ?? until / 1_000;
      plot.setScale("x", { min: Math.max(first, until / 1_000 - windowSeconds), max: until / 1_000 });
    }

    let next = 0;
    const stop = effect(() => {
      for (const { datasourceId } of bindings) live.version(datasourceId);
      live.now.value; // Once a second. Without a new value the time still goes on.
      const now = performance.now();
      if (now < next) return;
      // A line that moves by less than a pixel needs no frame.
      next = now + Math.min(SECOND_MS / 2, (windowSeconds * SECOND_MS) / (size?.width || 1));
      draw();
    });
    const resized = new ResizeObserver(() => {
      size = { width: box.clientWidth, height: box.clientHeight };
      if (plot && size.width) plot.setSize(size);
      else draw();
    });
    resized.observe(box);
    return () => {
      over = true;
      stop();
      resized.disconnect();
      plot?.destroy();
    };
  }, [live, key, windowSeconds]);

  for (const { datasourceId } of bindings) live.version(datasourceId);
  const all = linesOf(live, bindings);
  const words = all.slice(0, MOST_LINES).map(({ label, binding }) => {
    const value = formatValue(shownNow(live.board, binding, windowSeconds), settings.decimals);
    return { label, text: `${value}${settings.unit ? ` ${settings.unit}` : ""}` };
  });
  return (
    <div class="chart">
      <div class="chart-box" ref={place} role="img" aria-label={words.map(({ label, text }) => `${label}: ${text}`).join(", ")} />
      <div class="legend note">
        {words.map(({ label, text }, index) => (
          <span key={index}>
            <i class={`swatch s${(index % 4) + 1} ${index < 4 ? "" : "dashed"}`} aria-hidden="true" />
            {label} <b>{text}</b>
          </span>
        ))}
        {all.length > MOST_LINES ? <span>and {all.length - MOST_LINES} more, which are not drawn</span> : null}
        {sorted(settings.thresholds)
          .filter(({ state }) => state !== "ok")
          .map(({ from, state, label }) => (
            <span key={from} class={`state ${state}`}>
              <span aria-hidden="true">{SHAPES[state]}</span> {label || `from ${from}`}
            </span>
          ))}
      </div>
    </div>
  );
}
