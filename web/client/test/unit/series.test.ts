/** The order of values: no step back, no double, and a seam between history and live values that hides nothing. */

import fc from "fast-check";
import { expect, test } from "vitest";
import type { Frame, Point } from "../../src/index.js";
import { Series } from "../../src/series.js";
import { Datasource } from "../../src/datasource.js";
import { pause } from "../../src/backoff.js";
import { seq } from "../double.js";

const T0 = Date.parse("2027-01-15T08:00:00.000Z");
const EVERY_MS = 1_000;

const at = (ms: number): string => new Date(T0 + ms).toISOString();
const data = (ms: number, payload: number, more: Partial<Frame> = {}): Frame => ({
  type: "data",
  datasourceId: "temp",
  timestamp: at(ms),
  payload,
  seq: seq(ms),
  ...more,
});
const shown = (series: Series) => series.samples.map(({ value }) => value);

/** The points that a server makes of values: one for each bucket. */
function points(values: readonly { ms: number; payload: number }[]): Point[] {
  const buckets = new Map<number, { ms: number; payload: number }[]>();
  for (const value of values) {
    const begin = Math.floor(value.ms / EVERY_MS) * EVERY_MS;
    buckets.set(begin, [...(buckets.get(begin) ?? []), value]);
  }
  return [...buckets].map(([begin, inside]) => {
    const last = inside.reduce((one, other) => (other.ms > one.ms ? other : one));
    const numbers = inside.map(({ payload }) => payload);
    return { at: at(begin), least: Math.min(...numbers), most: Math.max(...numbers), last: last.payload, seq: seq(last.ms) };
  });
}

test("an older and an equal value are dropped", () => {
  const series = new Series(undefined, 10);
  expect(series.take(data(2, 2), 0)).toBe(true);
  expect(series.take(data(1, 1), 0)).toBe(false);
  expect(series.take(data(2, 2), 0)).toBe(false);
  expect(shown(series)).toEqual([2]);
});

test("a value that was taken back is not shown, an older one does not bring it back, and a newer one is", () => {
  const series = new Series(undefined, 10);
  series.take(data(1, 1), 0);
  series.take(data(2, 0, { deleted: true }), 0);
  expect(series.latest).toBeUndefined();
  expect(series.seq).toBe(seq(2));
  expect(series.take(data(1, 1, { retained: true }), 0)).toBe(false);
  expect(series.take(data(3, 3), 0)).toBe(true);
  expect(series.latest?.value).toBe(3);
});

test("a new subscription may count differently: only the times are compared, once", () => {
  const series = new Series(undefined, 10);
  series.take(data(5, 5), 0);
  series.renew();
  expect(series.take(data(4, 4, { seq: "9" }), 0)).toBe(false);
  expect(series.take(data(6, 6, { seq: "1" }), 0)).toBe(true);
  expect(series.take(data(7, 7, { seq: "0" }), 0)).toBe(false);
});

test("the last value that comes again at subscribe is no new one, and the gap is marked at the next", () => {
  const series = new Series(undefined, 10);
  series.take(data(1, 1), 0);
  series.renew();
  expect(series.take(data(1, 1, { retained: true }), 0)).toBe(false);
  series.take(data(2, 2), 0);
  series.take(data(3, 3), 0);
  expect(series.samples.map(({ gap }) => gap)).toEqual([undefined, true, undefined]);
});

test("a recovery fills the gap of its own subscription, and no other", () => {
  const series = new Series(undefined, 10);
  series.take(data(1, 1), 0);
  series.renew();
  series.take(data(2, 2), 0);
  series.renew();
  series.take(data(3, 3), 0);
  series.recovered();
  expect(series.samples.map(({ gap }) => gap)).toEqual([undefined, true, undefined]);
});

test("a point that takes the place of a marked value carries the mark, until it is recovered", () => {
  const series = new Series(undefined, 10);
  series.take(data(100, 1), 0);
  series.renew();
  series.take(data(5_100, 2), 0);
  series.merge(points([{ ms: 5_050, payload: 9 }, { ms: 5_100, payload: 2 }]));
  expect(series.samples.map(({ value, gap }) => [value, gap])).toEqual([[1, undefined], [2, true]]);
  series.recovered();
  expect(series.samples.map(({ gap }) => gap)).toEqual([undefined, undefined]);
});

test("values without seq, of another kind of gateway, are taken as they come", () => {
  const series = new Series(undefined, 10);
  for (const ms of [2, 1, 1]) expect(series.take({ type: "data", payload: ms, timestamp: at(ms) }, 0)).toBe(true);
  expect(series.latest?.value).toBe(1);
});

test("a value without a time has that of its arrival", () => {
  const series = new Series(undefined, 10);
  series.take({ type: "data", payload: null }, T0);
  expect(series.latest).toEqual({ at: T0, value: null, seq: undefined });
});

test("no more than the capacity is kept, the newest", () => {
  const series = new Series(undefined, 3);
  for (let ms = 0; ms < 10; ms++) series.take(data(ms, ms), 0);
  expect(shown(series)).toEqual([7, 8, 9]);
  series.merge(points(Array.from({ length: 10 }, (_, n) => ({ ms: -n * EVERY_MS, payload: -n }))));
  expect(series.samples).toHaveLength(3);
  expect(series.samples.at(-1)?.value).toBe(9);
});

test("each topic is a series of its own, and of too many the first goes", () => {
  const datasource = new Datasource("temp", Number.POSITIVE_INFINITY, 10);
  datasource.of("a").take(data(2, 2), 0);
  expect(datasource.of("b").take(data(1, 1), 0)).toBe(true);
  expect(datasource.newest?.topic).toBe("a");
  expect(datasource.seq).toBe(seq(2));
  for (let n = 0; n < 500; n++) datasource.of(`t${n}`);
  expect(datasource.series.size).toBe(500);
  expect(datasource.series.has("a")).toBe(false);
});

/** Values of one source, newest last: each a millisecond at least after the one before. */
const history = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 700 }), fc.integer({ min: -100, max: 100 })), { minLength: 1, maxLength: 40 })
  .map((steps) => {
    let ms = 0;
    return steps.map(([step, payload]) => ({ ms: (ms += step), payload }));
  });

test("property: whatever overtakes whatever, the value that is shown never steps back, and comes last", () => {
  fc.assert(
    fc.property(history, fc.array(fc.nat(), { maxLength: 80 }), (values, order) => {
      const series = new Series(undefined, 1_000);
      let newest = -1;
      for (const index of [...order.map((n) => n % values.length), values.length - 1]) {
        const { ms, payload } = values[index]!;
        const taken = series.take(data(ms, payload), 0);
        expect(taken).toBe(ms > newest);
        newest = Math.max(newest, ms);
        expect(series.latest?.at).toBe(T0 + newest);
      }
      const times = series.samples.map((sample) => sample.at);
      expect(new Set(times).size).toBe(times.length);
      expect(times).toEqual([...times].sort((one, other) => one - other));
    }),
  );
});

test("property: between history and live values nothing is missing, and nothing is there twice", () => {
  fc.assert(
    fc.property(history, fc.nat(), fc.nat(), fc.nat(), fc.boolean(), (values, a, b, c, twice) => {
      // Live values begin at `opened`. The history has all up to `known`, and comes when `read` were live.
      const opened = a % values.length;
      const known = b % (values.length + 1);
      const read = Math.max(opened, c % (values.length + 1));
      const series = new Series(undefined, 1_000);
      for (const { ms, payload } of values.slice(opened, read)) series.take(data(ms, payload), 0);
      const all = points(values.slice(0, known)).reverse();
      series.merge(all);
      for (const { ms, payload } of values.slice(read)) series.take(data(ms, payload), 0);
      if (twice) series.merge(all);
      const { samples } = series;
      for (const { ms, payload } of values) {
        const bucket = Math.floor(ms / EVERY_MS) * EVERY_MS;
        const inPoint = samples.filter((one) => one.bucket && one.at === T0 + bucket && (one.seq ?? "") >= seq(ms));
        const alone = samples.filter((one) => !one.bucket && one.seq === seq(ms));
        const is = ms > (values[known - 1]?.ms ?? -1) && ms < values[opened]!.ms ? 0 : 1;
        expect([...inPoint, ...alone]).toHaveLength(is);
        for (const one of inPoint) {
          expect(one.least).toBeLessThanOrEqual(payload);
          expect(one.most).toBeGreaterThanOrEqual(payload);
        }
      }
      const times = samples.map((sample) => sample.at);
      expect(times).toEqual([...times].sort((one, other) => one - other));
    }),
  );
});

test("property: a point never takes the place of one that has more", () => {
  fc.assert(
    fc.property(history, fc.nat(), (values, cut) => {
      const early = points(values.slice(0, (cut % values.length) + 1));
      const late = points(values);
      const [one, other] = [new Series(undefined, 1_000), new Series(undefined, 1_000)];
      one.merge(early);
      one.merge(late);
      other.merge(late);
      other.merge(early);
      expect(one.samples).toEqual(other.samples);
    }),
  );
});

test("property: a pause is never shorter than what was asked for, and no longer than thirty seconds above it", () => {
  fc.assert(
    fc.property(fc.nat({ max: 5_000 }), fc.nat({ max: 600_000 }), fc.double({ min: 0, max: 1, noNaN: true }), (failures, after, drawn) => {
      const wait = pause(failures, after, drawn);
      expect(wait).toBeGreaterThanOrEqual(after);
      expect(wait - after).toBeLessThanOrEqual(Math.min(30_000, 1_000 * 2 ** failures));
    }),
  );
});

test("pauses are spread over their whole range", () => {
  const pauses = Array.from({ length: 2_000 }, () => pause(10));
  for (let tenth = 0; tenth < 10; tenth++) {
    const inside = pauses.filter((wait) => wait >= tenth * 3_000 && wait < (tenth + 1) * 3_000);
    expect(inside.length).toBeGreaterThan(100);
  }
});
