/**
 * Documents of Freeboard, in and out.
 *
 * A document of its version 1 is one of ours already. Its widgets name values by paths such as
 * `datasources["boiler"].temperature`; ours have bindings. So a widget is converted, and keeps what it was in `original`.
 * On export a widget that was not changed since is what it was: in and out is equal.
 *
 * A board file of the classic Freeboard is converted once, with a report of what could not be.
 */

import type { Binding, BoardDocument, DatasourceEntry, Pane, Widget, WidgetSettings } from "../../board/document.js";
import { parsePath } from "../../widgets/path.js";

type Json = Record<string, unknown>;

export interface Imported {
  document: BoardDocument;
  /** What could not be carried over, in words for people. */
  report: string[];
}

/** What is wrong with a file, for people. */
export class NotImportable extends Error {}

const LIVE_TYPES = ["mqtt", "sse", "websocket"];

/** Reads a file of any of the kinds. Throws `NotImportable`. */
export function importDocument(text: string, title: string): Imported {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new NotImportable("The file is not JSON.");
  }
  if (!isObject(raw)) throw new NotImportable("The file holds no dashboard.");
  if (raw.schemaVersion === 1) return fromVersion1(raw);
  if (raw.schemaVersion !== undefined) throw new NotImportable(`Documents of version ${String(raw.schemaVersion)} are not known: only 1.`);
  if (Array.isArray(raw.panes)) return fromClassic(raw, title);
  throw new NotImportable("The file holds no dashboard: it has neither a schemaVersion nor panes.");
}

/** A document as a file: what was imported and not changed since is as it was. */
export function exportDocument(document: BoardDocument): BoardDocument {
  return {
    ...document,
    panes: document.panes.map((pane) => ({
      ...pane,
      widgets: pane.widgets.map((widget) => unconverted(widget, document.datasources)),
    })),
  };
}

function unconverted(widget: Widget, datasources: readonly DatasourceEntry[]): Widget {
  const { original, ...rest } = widget as Widget & { original?: unknown };
  if (!isObject(original)) return widget;
  const again = converted(original, datasources);
  return again && same(again, widget) ? (original as unknown as Widget) : rest;
}

function fromVersion1(raw: Json): Imported {
  const document = raw as unknown as BoardDocument;
  const report: string[] = [];
  const datasources = Array.isArray(document.datasources) ? document.datasources : [];
  for (const { id, title, type } of datasources) {
    if (!LIVE_TYPES.includes(type)) report.push(`Datasource “${title || id}”: a source of type ${type} is kept, but is not live here.`);
  }
  const panes = (Array.isArray(document.panes) ? document.panes : []).map((pane) => ({
    ...pane,
    widgets: (Array.isArray(pane.widgets) ? pane.widgets : []).map((widget) => {
      if (Array.isArray(widget.settings?.bindings) || (widget.type === "text" && widget.settings?.text !== undefined)) return widget;
      const made = converted(widget as unknown as Json, datasources);
      if (!made) report.push(`Widget “${widget.title || widget.id}” (${widget.type}): not imported. It is kept, and exported as it was.`);
      return made ?? widget;
    }),
  }));
  return { document: { ...document, panes }, report };
}

/** A widget of Freeboard's version 1 as one of ours; undefined when it cannot be. */
function converted(widget: Json, datasources: readonly DatasourceEntry[]): Widget | undefined {
  const old = isObject(widget.settings) ? widget.settings : {};
  const bound = bindingOf(old.valuePath ?? old.value, datasources);
  const label = words(old.headerText);
  const common: WidgetSettings = {
    ...(words(old.unitText) ? { unit: words(old.unitText) as string } : {}),
    ...(Number.isInteger(old.precision) ? { decimals: old.precision as number } : {}),
  };
  const made = (type: string, settings: WidgetSettings): Widget =>
    ({ ...widget, type, settings, original: widget }) as unknown as Widget;
  const one = bound && { ...bound, ...(label ? { label } : {}) };
  switch (widget.type) {
    case "text":
      return one && made("value", { bindings: [one], ...common });
    case "gauge": {
      const [min, max] = [Number(old.min ?? 0), Number(old.max ?? 100)];
      return one && made("gauge", { bindings: [one], ...common, min, max });
    }
    case "sparkline": {
      const paths = String(old.seriesPaths ?? "").split(",");
      const several = paths.flatMap((path) => bindingOf(path, datasources) ?? []);
      const bindings = several.length ? several : one ? [one] : [];
      return bindings.length ? made("sparkline", { bindings, ...common }) : undefined;
    }
    case "indicator": {
      const on = words(old.onText) ?? "On";
      const off = words(old.offText) ?? "Off";
      const map: WidgetSettings["map"] = {
        true: { state: "ok", label: on },
        1: { state: "ok", label: on },
        false: { state: "warn", label: off },
        0: { state: "warn", label: off },
      };
      return one && made("status", { bindings: [one], map });
    }
    case "table": {
      const columns = (Array.isArray(old.columns) ? old.columns : []).filter(isObject).map((column) => ({
        path: words(column.field) ?? "",
        header: words(column.header) ?? words(column.field) ?? "",
        format: column.format === "date" || column.format === "datetime" ? ("time" as const) : ("text" as const),
      }));
      const emptyText = words(old.emptyText);
      return bound && made("table", { bindings: [bound], columns, ...(emptyText ? { emptyText } : {}) });
    }
    default:
      return undefined;
  }
}

const REFERENCE = /^datasources(?:\.([A-Za-z_$][\w$-]*)|\[(?:"([^"]+)"|'([^']+)')\])(.*)$/s;

/**
 * The binding that an expression stands for: `datasources["boiler"].temperature`, `Boiler.temperature` by the title, or
 * one of them in `{{ }}`. Undefined for anything else: code is not run, and not guessed at.
 */
export function bindingOf(expression: unknown, datasources: readonly { id: string; title?: string }[]): Binding | undefined {
  if (typeof expression !== "string") return undefined;
  let text = expression.trim();
  text = /^\{\{\s*([^{}]+?)\s*\}\}$/.exec(text)?.[1] ?? text;
  text = /^return\s+([^;]+);?$/.exec(text)?.[1]?.trim() ?? text;
  const found = REFERENCE.exec(text);
  const name = found ? (found[1] ?? found[2] ?? found[3]) : /^[^.[\]]+/.exec(text)?.[0];
  const rest = found ? (found[4] ?? "") : text.slice(name?.length ?? 0);
  const source = datasources.find(({ id }) => id === name) ?? datasources.find(({ title }) => title === name);
  if (!source) return undefined;
  const path = rest.replace(/^\./, "").replace(/\['([^'"\\]+)'\]/g, '["$1"]');
  return parsePath(path) === null ? undefined : { datasourceId: source.id, path };
}

// --- the classic board file -------------------------------------------------------------------------------------

/** Rows of a widget in a pane that is converted. */
const HEIGHTS: Record<string, number> = { gauge: 4, text_widget: 2, sparkline: 3, indicator: 1 };
/** The classic grid has three columns at least; each is four of ours. */
const COLUMN = 4;

function fromClassic(raw: Json, title: string): Imported {
  const report: string[] = [];
  const taken: string[] = [];
  const datasources = list(raw.datasources).map((old): DatasourceEntry => {
    const name = words(old.name) ?? "datasource";
    const id = fresh(name, taken);
    const live = classicSource(old);
    if (live) report.push(`Datasource “${name}”: check its address and its rights.${live.left ? ` ${LEFT}` : ""}`);
    else report.push(`Datasource “${name}” (${String(old.type)}): it is not live here. Choose another source for it.`);
    // What it connected to may hold a secret, which a document must not. So only what is understood is taken.
    return { id, title: name, type: live?.type ?? "sse", enabled: false, settings: live?.settings ?? { url: "https://example.com/" } };
  });
  const places: { x: number; w: number; bottom: number }[] = [];
  const old = list(raw.panes).map((pane) => ({ pane, row: placeIn(pane.row), column: placeIn(pane.col) }));
  old.sort((a, b) => a.row - b.row || a.column - b.column);
  const panes = old.map(({ pane, column }, index): Pane => {
    const w = Math.min(12, COLUMN * Math.max(1, Math.round(Number(pane.col_width ?? pane.width ?? 1)) || 1));
    const x = Math.min(12 - w, COLUMN * Math.max(0, column - 1));
    const widgets = list(pane.widgets).map((widget, place) => classicWidget(widget, place, datasources, words(pane.title), report));
    const h = Math.max(2, list(pane.widgets).reduce((sum, { type }) => sum + (HEIGHTS[String(type)] ?? 2), 1));
    const y = Math.max(0, ...places.filter((other) => x < other.x + other.w && other.x < x + w).map(({ bottom }) => bottom));
    places.push({ x, w, bottom: y + h });
    const id = `pane-${index + 1}`;
    return { id, title: words(pane.title) ?? "", layout: { i: id, x, y, w, h }, widgets };
  });
  if (words(raw.header_image)) report.push("The picture in the header: not imported.");
  if (list(raw.plugins).length || (Array.isArray(raw.plugins) && raw.plugins.length)) report.push("Plug-ins: not imported, as they are code.");
  const document: BoardDocument = { schemaVersion: 1, title, columns: 12, width: "lg", settings: {}, datasources, panes };
  return { document, report };
}

const LEFT = "What followed “?” in it, and a user name, were left out, as they may be secret: put a secret into a credential profile.";

/** `left`: whether the address had parts that may be secret. The API would refuse the whole document for one of them. */
function classicSource({ type, settings }: Json): { type: string; settings: Json; left: boolean } | undefined {
  const old = isObject(settings) ? settings : {};
  const whole = words(old.url) ?? words(old.uri) ?? "";
  if (!URL.canParse(whole)) return undefined;
  const address = new URL(whole);
  const left = Boolean(address.search || address.username || address.password);
  address.search = address.username = address.password = "";
  const source = { settings: { url: left ? address.href : whole }, left };
  if (/websocket/i.test(String(type)) && /^wss?:$/.test(address.protocol)) return { type: "websocket", ...source };
  if (/eventsource|sse/i.test(String(type)) && /^https?:$/.test(address.protocol)) return { type: "sse", ...source };
  return undefined;
}

function classicWidget(
  old: Json,
  place: number,
  datasources: readonly DatasourceEntry[],
  pane: string | undefined,
  report: string[],
): Widget {
  const settings = isObject(old.settings) ? old.settings : {};
  const id = `widget-${place + 1}`;
  const title = words(settings.title) ?? "";
  const unit = words(settings.units);
  const expressions = Array.isArray(settings.value) ? settings.value : [settings.value];
  const bindings = expressions.flatMap((one) => bindingOf(one, datasources) ?? []);
  const complete = bindings.length > 0 && bindings.length === expressions.length;
  const common = { bindings, ...(unit ? { unit: unescaped(unit) } : {}) };
  const named = { id, title, enabled: true };
  if (complete) {
    switch (old.type) {
      case "text_widget":
        return { ...named, type: settings.sparkline ? "sparkline" : "value", settings: common };
      case "gauge":
        return {
          ...named,
          type: "gauge",
          settings: { ...common, min: Number(settings.min_value ?? 0), max: Number(settings.max_value ?? 100) },
        };
      case "sparkline":
        return { ...named, type: "sparkline", settings: common };
      case "indicator": {
        const on = words(settings.on_text) ?? "On";
        const off = words(settings.off_text) ?? "Off";
        return {
          ...named,
          type: "status",
          settings: {
            bindings,
            map: {
              true: { state: "ok", label: on },
              1: { state: "ok", label: on },
              false: { state: "warn", label: off },
              0: { state: "warn", label: off },
            },
          },
        };
      }
    }
  }
  const why = bindings.length < expressions.length && settings.value !== undefined ? "its value is code" : "there is no such widget here";
  report.push(`Pane “${pane ?? ""}”, widget “${title || id}” (${String(old.type)}): not imported, because ${why}. It is kept as it was.`);
  return { ...named, type: `freeboard:${String(old.type)}`, settings: {}, original: old } as Widget;
}

/** The place in the narrowest grid that the classic file knows. */
function placeIn(places: unknown): number {
  if (typeof places === "number") return places;
  const [first] = isObject(places) ? Object.values(places) : [];
  return typeof first === "number" ? first : 1;
}

const ENTITIES: Record<string, string> = { deg: "°", micro: "µ", amp: "&", lt: "<", gt: ">", percnt: "%", nbsp: " " };

function unescaped(text: string): string {
  return text.replace(/&(\w+);/g, (whole, name: string) => ENTITIES[name] ?? whole);
}

function fresh(name: string, taken: string[]): string {
  const base = name.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "") || "datasource";
  let id = base;
  for (let number = 2; taken.includes(id); number++) id = `${base}-${number}`;
  taken.push(id);
  return id;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function words(value: unknown): string | undefined {
  return typeof value === "string" && value.trim() ? value : undefined;
}

/** Equal as JSON, whatever the order of the keys. */
export function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(ordered(a)) === JSON.stringify(ordered(b));
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key])]));
}
