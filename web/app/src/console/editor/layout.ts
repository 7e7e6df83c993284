/** Where panes lie. Panes never overlap, and leave no empty rows above them. */

import type { Layout, Pane } from "../../board/document.js";

interface Place {
  id: string;
  x: number;
  y: number;
  w: number;
  h: number;
}

const MOST_ROWS = 40;

function overlap(a: Place, b: Place): boolean {
  return a.id !== b.id && a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

const byPlace = (a: Place, b: Place): number => a.y - b.y || a.x - b.x;

/** The panes after one of them was put somewhere: those in its way move up when there is room, else down. */
export function arranged(panes: readonly Pane[], id: string, wish: Partial<Layout>, columns: number): Pane[] {
  const places = panes.map(({ id: own, layout: { x, y, w, h } }) => ({ id: own, x, y, w, h }));
  const found = places.find((place) => place.id === id);
  if (!found) return [...panes];
  const w = clamp(wish.w ?? found.w, 1, columns);
  const moved: Place = {
    id,
    w,
    h: clamp(wish.h ?? found.h, 1, MOST_ROWS),
    x: clamp(wish.x ?? found.x, 0, columns - w),
    y: Math.max(0, wish.y ?? found.y),
  };
  const done = [moved];
  for (const place of places.filter((one) => one.id !== id).sort(byPlace)) {
    const above = { ...place, y: moved.y - place.h };
    if (overlap(place, moved) && above.y >= 0 && !done.some((other) => overlap(above, other))) done.push(above);
    else done.push(below(place, done));
  }
  return withPlaces(panes, compacted(done));
}

function below(place: Place, others: readonly Place[]): Place {
  let free = place;
  for (;;) {
    const here = free;
    const inTheWay = others.filter((other) => overlap(here, other));
    if (!inTheWay.length) return free;
    free = { ...free, y: Math.max(...inTheWay.map(({ y, h }) => y + h)) };
  }
}

function compacted(places: readonly Place[]): Place[] {
  const done: Place[] = [];
  for (const place of [...places].sort(byPlace)) {
    let free = place;
    while (free.y > 0) {
      const up = { ...free, y: free.y - 1 };
      if (done.some((other) => overlap(up, other))) break;
      free = up;
    }
    done.push(free);
  }
  return done;
}

function withPlaces(panes: readonly Pane[], places: readonly Place[]): Pane[] {
  const known = new Map(places.map((place) => [place.id, place]));
  return panes.map((pane) => {
    const { x, y, w, h } = known.get(pane.id) as Place;
    return { ...pane, layout: { ...pane.layout, x, y, w, h } };
  });
}

/** Without a pane: what was below it moves up. */
export function without(panes: readonly Pane[], id: string): Pane[] {
  const left = panes.filter((pane) => pane.id !== id);
  return withPlaces(left, compacted(left.map(({ id: own, layout: { x, y, w, h } }) => ({ id: own, x, y, w, h }))));
}

/** A place for one more pane: the first free one, from the top. */
export function freePlace(panes: readonly Pane[], size: { w: number; h: number }, columns: number): Layout {
  const w = Math.min(size.w, columns);
  const bottom = Math.max(0, ...panes.map(({ layout }) => layout.y + layout.h));
  for (let y = 0; y < bottom; y++) {
    for (let x = 0; x + w <= columns; x++) {
      const place = { id: "", x, y, w, h: size.h };
      if (!panes.some(({ layout }) => overlap(place, { ...layout, id: "-" }))) return { x, y, w, h: size.h };
    }
  }
  return { x: 0, y: bottom, w, h: size.h };
}

export type Direction = "left" | "right" | "up" | "down";

/** A pane one step further, by keyboard. It goes past what is in its way; at the edge nothing changes. */
export function stepped(panes: readonly Pane[], id: string, to: Direction, columns: number): Pane[] {
  const pane = panes.find((one) => one.id === id);
  if (!pane) return [...panes];
  const { x, y } = pane.layout;
  if (to === "left") return arranged(panes, id, { x: x - 1 }, columns);
  if (to === "right") return arranged(panes, id, { x: x + 1 }, columns);
  for (let by = 1; by <= MOST_ROWS; by++) {
    const wish = to === "up" ? y - by : y + by;
    if (wish < 0) break;
    const next = arranged(panes, id, { y: wish }, columns);
    const now = next.find((one) => one.id === id)?.layout.y ?? y;
    if (to === "up" ? now < y : now > y) return next;
  }
  return [...panes];
}

/** A pane one step wider, narrower, higher or lower. */
export function resized(panes: readonly Pane[], id: string, to: Direction, columns: number): Pane[] {
  const pane = panes.find((one) => one.id === id);
  if (!pane) return [...panes];
  const { x, w, h } = pane.layout;
  const wish = {
    left: { w: w - 1 },
    right: { w: Math.min(w + 1, columns - x) },
    up: { h: h - 1 },
    down: { h: h + 1 },
  }[to];
  return arranged(panes, id, wish, columns);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.round(value)));
}
