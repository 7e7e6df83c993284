import { expect, test } from "vitest";
import type { Sample } from "@tidegate/client";
import { panesOf, type BoardDocument } from "../src/board/document.js";
import { asNumber, at, judge, numbers, reduced, thinned, topicDigest, type XY } from "../src/widgets/binding.js";
import { formatAge, formatNumber, formatValue, zoneOf } from "../src/widgets/format.js";
import { ALL, parsePath, readPath, writePath } from "../src/widgets/path.js";
import { aligned } from "../src/widgets/series.js";
import { line } from "../src/widgets/sparkline.js";

test("paths are read as they are written", () => {
  const payload = { a: { b: [{ c: 1 }, { c: 2 }] }, "x.y": { 'q"': 3 }, list: [[1], [2]] };
  const found: [string, unknown][] = [
    ["", payload],
    ["a.b[0].c", 1],
    ['a["b"][1]["c"]', 2],
    ["a.b[*].c", [1, 2]],
    ["list[*][0]", [1, 2]],
    ['["x.y"]["q\\""]', 3],
    ["a.none.c", undefined],
    ["a.b[9].c", undefined],
    ["a.b[*].none", []],
  ];
  for (const [path, value] of found) expect(at(payload, path), path).toEqual(value);
  for (const wrong of [".a", "a..b", "a[", "a[b]", "a b", "[-1]", "a[*", '["a]', "a.[0]"]) expect(parsePath(wrong), wrong).toBeNull();
  expect(parsePath("a[*]")).toEqual(["a", ALL]);
});

test("a path reaches own properties only", () => {
  for (const path of ["constructor", "__proto__", "toString", "a.constructor.name", "length"]) {
    expect(at({ a: {} }, path), path).toBeUndefined();
  }
  expect(at("text", "length")).toBeUndefined();
  expect(readPath(JSON.parse('{"__proto__": 5}'), ["__proto__"])).toBe(5);
});

test("a path that was written leads to its value again", () => {
  const payload = { a: [{ "b c": { 'd"': 1, 5: 2, ü: 3 } }] };
  const walk = (value: unknown, steps: (string | number)[]): void => {
    expect(at(payload, writePath(steps)), writePath(steps)).toEqual(value);
    if (Array.isArray(value)) value.forEach((inner, index) => walk(inner, [...steps, index]));
    else if (typeof value === "object" && value) for (const [key, inner] of Object.entries(value)) walk(inner, [...steps, key]);
  };
  walk(payload, []);
});

test("numbers are taken from text, and from nothing else", () => {
  expect([5, "5.5", " 7 ", true, false].map(asNumber)).toEqual([5, 5.5, 7, 1, 0]);
  for (const none of ["", " ", "x", null, undefined, {}, [5], Number.NaN, "Infinity"]) expect(asNumber(none)).toBeUndefined();
});

test("a threshold holds from its number up", () => {
  const thresholds = [
    { from: 10, state: "warn" as const, label: "high" },
    { from: 0, state: "ok" as const },
    { from: 20, state: "critical" as const },
  ];
  const states = [-1, 0, 9.9, 10, 19, 20, 99].map((value) => judge(value, { thresholds })?.state);
  expect(states).toEqual([undefined, "ok", "ok", "warn", "warn", "critical", "critical"]);
  expect(judge("open", { map: { open: { state: "warn", label: "Open" } } })).toEqual({ state: "warn", label: "Open" });
  expect(judge("constructor", { map: {} })).toBeUndefined();
});

const SAMPLES: Sample[] = [1, 2, 3, 4, 5].map((n) => ({ at: n * 1_000, value: { v: n } }));

test("numbers are scaled, reduced, and broken where something may be missing", () => {
  const binding = { datasourceId: "d", path: "v", scale: 2, offset: 1 };
  const points = numbers(SAMPLES, binding, 2_000);
  expect(points.map(({ y }) => y)).toEqual([5, 7, 9, 11]);
  expect((["last", "min", "max", "mean", "rate"] as const).map((how) => reduced(points, how))).toEqual([11, 5, 11, 8, 2]);
  expect(reduced([], "mean")).toBeUndefined();
  const gapped = numbers([...SAMPLES, { at: 6_000, value: { v: 6 }, gap: true }], binding, 0);
  expect(gapped.map(({ y }) => y)).toEqual([3, 5, 7, 9, 11, null, 13]);
  const paused = numbers([...SAMPLES, { at: 60_000, value: { v: 6 } }], binding, 0);
  expect(paused.map(({ y }) => y)).toEqual([3, 5, 7, 9, 11, null, 13]);
  const [path = ""] = [line(gapped, 0, 6_000)];
  expect(path.match(/M/g)).toHaveLength(2);
});

test("a bucket of plain numbers brings its least and its most", () => {
  const bucket: Sample = { at: 1_000, value: 3, bucket: true, least: 1, most: 9 };
  expect(numbers([bucket], { datasourceId: "d" }, 0).map(({ y }) => y)).toEqual([1, 9, 3]);
  expect(numbers([{ ...bucket, value: { v: 3 } }], { datasourceId: "d", path: "v" }, 0).map(({ y }) => y)).toEqual([3]);
});

test("a chart has a place for the least, the most and the last of a bucket", () => {
  const bucket: Sample = { at: 1_000, value: 3, bucket: true, least: 1, most: 9 };
  const other: Sample = { at: 1_500, value: 5 };
  const lines = [numbers([bucket], { datasourceId: "d" }, 0), numbers([other], { datasourceId: "e" }, 0)];
  expect(aligned(lines)[1]).toEqual([1, 9, 3, undefined]);
});

test("only what a picture can show is drawn, and no peak and no break is lost", () => {
  const points: XY[] = Array.from({ length: 2_000 }, (_, index) => ({ at: index * 100, y: Math.sin(index / 50) }));
  points[777] = { at: 77_700, y: 40 };
  points[1_234] = { at: 123_400, y: -40 };
  points.splice(1_500, 0, { at: 149_950, y: null });
  const shown = thinned(points, 100);
  expect(shown.length).toBeLessThanOrEqual(4 * 100 + 6);
  expect(shown.map(({ at }) => at)).toEqual(shown.map(({ at }) => at).sort((a, b) => a - b));
  expect(shown.map(({ y }) => y)).toEqual(expect.arrayContaining([40, -40, null]));
  expect([shown[0], shown.at(-1)]).toEqual([points[0], points.at(-1)]);
  expect(thinned(points.slice(0, 400), 100)).toHaveLength(400);
});

test("lines share one axis of times", () => {
  const data = aligned([
    [
      { at: 1_000, y: 1 },
      { at: 3_000, y: null },
    ],
    [{ at: 2_000, y: 2 }],
  ]);
  expect(data).toEqual([
    [1, 2, 3],
    [1, undefined, null],
    [undefined, 2, undefined],
  ]);
});

test("values, ages and zones are written for people", () => {
  expect([1234.5, 12.34, 1.239, 0].map((n) => formatNumber(n))).toEqual(["1235", "12.3", "1.24", "0"]);
  expect(formatNumber(1.5, 3)).toBe("1.500");
  expect([null, undefined, "x", true, { a: 1 }].map((value) => formatValue(value))).toEqual(["–", "–", "x", "true", '{"a":1}']);
  expect([0, 59_000, 61_000, 7_200_000, 200_000_000].map(formatAge)).toEqual(["0 s", "59 s", "1 min", "2 h", "2 d"]);
  expect([zoneOf("UTC"), zoneOf("browser"), zoneOf("Nowhere/Land"), zoneOf(undefined)]).toEqual(["UTC", undefined, undefined, undefined]);
});

test("a topic has the digest that the server gives it", () => {
  expect(["", "a", "foobar"].map(topicDigest)).toEqual(["811c9dc5", "e40c292c", "bf9cf968"]);
});

test("any document can be drawn", () => {
  const wrong = {
    columns: 6,
    panes: [null, { id: "a", layout: { x: -3, y: 2.4, w: 99, h: 0 }, widgets: [null, { id: "w", type: "value", enabled: false }] }, { id: 7 }],
  } as unknown as BoardDocument;
  expect(panesOf(wrong)).toEqual([
    { id: "a", layout: { x: 0, y: 2, w: 6, h: 1 }, widgets: [] },
    { id: "7", layout: { x: 0, y: 2, w: 6, h: 3 }, widgets: [] },
  ]);
  expect(panesOf({ columns: 3 } as unknown as BoardDocument)).toEqual([]);
});
