/** What a widget shows: the values behind its bindings, now and over a while. */

import type { Dashboard, Sample, Series } from "@tidegate/client";
import type { Binding, Reduce, StateName, Threshold, WidgetSettings } from "../board/document.js";
import { parsePath, readPath, type Step } from "./path.js";

const parsed = new Map<string, Step[] | null>();

function steps(path: string | undefined): Step[] | null {
  const text = path ?? "";
  let found = parsed.get(text);
  if (found === undefined) parsed.set(text, (found = parsePath(text)));
  return found;
}

/** What a path finds in a payload. Undefined for nothing, and for a path that is none. */
export function at(value: unknown, path: string | undefined): unknown {
  const found = steps(path);
  return found === null ? undefined : readPath(value, found);
}

/** A number of a payload: also one that is written as text. Undefined for what is none. */
export function asNumber(value: unknown): number | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value !== "number" && (typeof value !== "string" || value.trim() === "")) return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}

export function scaled(number: number, binding: Binding): number {
  return number * (binding.scale ?? 1) + (binding.offset ?? 0);
}

/** Whether a binding is about this topic. One that names no topic is about all. */
export function about({ topic, topicDigest: digest }: Binding, of: string | undefined): boolean {
  if (topic !== undefined) return topic === of;
  return digest === undefined || digest === topicDigest(of ?? "");
}

const digests = new Map<string, string>();

/** The digest of a topic, as the server makes it: FNV-1a of its UTF-8, 32 bits. */
export function topicDigest(topic: string): string {
  let found = digests.get(topic);
  if (found === undefined) {
    let digest = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(topic)) digest = Math.imul(digest ^ byte, 0x01000193);
    digests.set(topic, (found = (digest >>> 0).toString(16).padStart(8, "0")));
  }
  return found;
}

/** The series that a binding is about: of its topic, or the newest one. */
export function seriesOf(board: Dashboard, binding: Binding): Series | undefined {
  const datasource = board.datasource(binding.datasourceId);
  if (binding.topic === undefined && binding.topicDigest === undefined) return datasource?.newest;
  return [...(datasource?.series.values() ?? [])].find(({ topic }) => about(binding, topic));
}

export interface XY {
  /** Milliseconds since 1970. */
  at: number;
  /** Null where the line is broken, because values may be missing. */
  y: number | null;
}

/** A pause of so many usual intervals breaks the line: nothing says that the value stayed as it was. */
const PAUSE = 12;

/** The place of the first sample that is not before a moment. */
function firstSince(samples: readonly Sample[], since: number): number {
  let low = 0;
  let high = samples.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((samples[middle] as Sample).at < since) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The numbers of a series since a moment. A bucket of plain numbers brings its least and its most, each a millisecond
 * after the other: a chart has one place for each time. The line is broken where values may be missing, and where none
 * came for much longer than usual.
 */
export function numbers(all: readonly Sample[], binding: Binding, since: number): XY[] {
  const found: XY[] = [];
  const samples = all.slice(firstSince(all, since));
  const pause = PAUSE * Math.max(1_000, usualInterval(samples));
  let before: number | undefined;
  for (const sample of samples) {
    if (before !== undefined && (sample.gap || sample.at - before > pause)) found.push({ at: before + 1, y: null });
    before = sample.at;
    const { bucket, least, most } = sample;
    let place = sample.at;
    if (bucket && !binding.path && least !== undefined && most !== undefined && least !== most) {
      for (const y of [least, most]) found.push({ at: place++, y: scaled(y, binding) });
    }
    const number = asNumber(at(sample.value, binding.path));
    if (number !== undefined) found.push({ at: place, y: scaled(number, binding) });
  }
  return found;
}

/**
 * The points that a picture of so many columns shows: of each column the first, the least, the most and the last, and
 * each break. Fewer points are left as they are.
 */
export function thinned(points: readonly XY[], columns: number): readonly XY[] {
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last || points.length <= 4 * columns) return points;
  const width = (last.at - first.at) / columns || 1;
  const found: XY[] = [];
  let from = 0;
  while (from < points.length) {
    const column = Math.floor(((points[from] as XY).at - first.at) / width);
    let to = from;
    let least = from;
    let most = from;
    while (to < points.length && Math.floor(((points[to] as XY).at - first.at) / width) === column) {
      const { y } = points[to] as XY;
      if (y === null) break;
      if (y < ((points[least] as XY).y as number)) least = to;
      if (y > ((points[most] as XY).y as number)) most = to;
      to++;
    }
    if (to === from) to++; // A break.
    for (const place of new Set([from, Math.min(least, most), Math.max(least, most), to - 1])) found.push(points[place] as XY);
    from = to;
  }
  return found;
}

/** The median of the times between samples, of at most a hundred of them. */
function usualInterval(samples: readonly Sample[]): number {
  const step = Math.max(1, Math.floor(samples.length / 100));
  const found: number[] = [];
  for (let index = 1; index < samples.length; index += step) {
    found.push((samples[index] as Sample).at - (samples[index - 1] as Sample).at);
  }
  return found.sort((a, b) => a - b)[found.length >> 1] ?? 0;
}

/** One number for many. `rate` is the change in a second, between the first and the last. */
export function reduced(points: readonly XY[], how: Reduce): number | undefined {
  const known = points.filter((point): point is { at: number; y: number } => point.y !== null);
  const first = known[0];
  const last = known.at(-1);
  if (!first || !last) return undefined;
  const all = known.map(({ y }) => y);
  if (how === "min") return all.reduce((a, b) => Math.min(a, b));
  if (how === "max") return all.reduce((a, b) => Math.max(a, b));
  if (how === "mean") return all.reduce((a, b) => a + b) / all.length;
  if (how === "rate") return last.at > first.at ? ((last.y - first.y) * 1_000) / (last.at - first.at) : undefined;
  return last.y;
}

/** What a binding shows now: a number where there is one, else what the payload holds. Undefined before any value. */
export function shownNow(board: Dashboard, binding: Binding, windowSeconds: number): unknown {
  const series = seriesOf(board, binding);
  if (!series?.latest) return undefined;
  if (binding.reduce && binding.reduce !== "last") {
    return reduced(numbers(series.samples, binding, board.serverTime - windowSeconds * 1_000), binding.reduce);
  }
  const value = at(series.latest.value, binding.path);
  if (typeof value === "boolean") return value;
  const number = asNumber(value);
  return number === undefined ? value : scaled(number, binding);
}

export interface Judged {
  state: StateName;
  label: string;
}

/** Which threshold a number has reached: the highest `from` that is not above it. */
export function judge(value: unknown, settings: WidgetSettings): Judged | undefined {
  const mapped = settings.map && Object.hasOwn(settings.map, String(value)) ? settings.map[String(value)] : undefined;
  if (mapped) return { state: mapped.state, label: mapped.label ?? String(value) };
  const number = asNumber(value);
  if (number === undefined) return undefined;
  const reached = sorted(settings.thresholds).findLast(({ from }) => from <= number);
  return reached && { state: reached.state, label: reached.label || fallbackLabel(reached) };
}

export function sorted(thresholds: readonly Threshold[] | undefined): Threshold[] {
  return [...(thresholds ?? [])].sort((a, b) => a.from - b.from);
}

function fallbackLabel({ from, state }: Threshold): string {
  return state === "ok" ? "normal" : `from ${from}`;
}
