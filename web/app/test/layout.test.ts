import { expect, test } from "vitest";
import type { Pane } from "../src/board/document.js";
import { arranged, freePlace, resized, stepped, without, type Direction } from "../src/console/editor/layout.js";

const COLUMNS = 12;

function pane(id: string, x: number, y: number, w: number, h: number): Pane {
  return { id, layout: { x, y, w, h }, widgets: [] };
}

function check(panes: readonly Pane[]): void {
  for (const { id, layout: a } of panes) {
    expect(a.x).toBeGreaterThanOrEqual(0);
    expect(a.x + a.w).toBeLessThanOrEqual(COLUMNS);
    expect(Math.min(a.w, a.h)).toBeGreaterThanOrEqual(1);
    expect(a.y).toBeGreaterThanOrEqual(0);
    for (const { id: other, layout: b } of panes) {
      const apart = a.x >= b.x + b.w || b.x >= a.x + a.w || a.y >= b.y + b.h || b.y >= a.y + a.h;
      expect(id === other || apart, `${id} lies on ${other}`).toBe(true);
    }
    // Nothing could move up.
    const above = panes.some(
      ({ id: other, layout: b }) => id !== other && b.y + b.h === a.y && a.x < b.x + b.w && b.x < a.x + a.w,
    );
    expect(a.y === 0 || above, `${id} leaves a gap above`).toBe(true);
  }
}

/** A small generator of numbers, so that a failure comes again. */
function numbers(seed: number): (most: number) => number {
  let state = seed;
  return (most) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % most;
  };
}

test("whatever is done, panes never overlap, stay in the grid, and leave no gap", () => {
  const directions: Direction[] = ["left", "right", "up", "down"];
  for (let seed = 1; seed <= 40; seed++) {
    const next = numbers(seed);
    let panes: Pane[] = [];
    for (let step = 0; step < 60; step++) {
      const chosen = panes[next(panes.length || 1)];
      const kind = chosen ? next(5) : 0;
      if (kind === 0 || !chosen) {
        const layout = freePlace(panes, { w: 1 + next(14), h: 1 + next(5) }, COLUMNS);
        const id = `p${step}`;
        panes = arranged([...panes, { id, layout, widgets: [] }], id, {}, COLUMNS);
      } else if (kind === 1) panes = arranged(panes, chosen.id, { x: next(20) - 4, y: next(20) - 4 }, COLUMNS);
      else if (kind === 2) panes = stepped(panes, chosen.id, directions[next(4)] as Direction, COLUMNS);
      else if (kind === 3) panes = resized(panes, chosen.id, directions[next(4)] as Direction, COLUMNS);
      else panes = without(panes, chosen.id);
      check(panes);
    }
  }
});

test("a step down goes past what is below, and back up again", () => {
  const panes = [pane("a", 0, 0, 4, 3), pane("b", 0, 3, 4, 3)];
  const down = stepped(panes, "a", "down", COLUMNS);
  expect(down.map(({ id, layout }) => [id, layout.y])).toEqual([
    ["a", 3],
    ["b", 0],
  ]);
  expect(stepped(down, "a", "up", COLUMNS).map(({ layout }) => layout.y)).toEqual([0, 3]);
});

test("at the edge a step changes nothing", () => {
  const panes = [pane("a", 0, 0, 12, 3)];
  for (const to of ["left", "right", "up", "down"] as const) expect(stepped(panes, "a", to, COLUMNS)).toEqual(panes);
  expect(resized(panes, "a", "right", COLUMNS)).toEqual(panes);
});

test("a new pane takes the first free place", () => {
  const panes = [pane("a", 0, 0, 4, 3), pane("b", 8, 0, 4, 3)];
  expect(freePlace(panes, { w: 4, h: 3 }, COLUMNS)).toEqual({ x: 4, y: 0, w: 4, h: 3 });
  expect(freePlace(panes, { w: 6, h: 3 }, COLUMNS)).toEqual({ x: 0, y: 3, w: 6, h: 3 });
});
