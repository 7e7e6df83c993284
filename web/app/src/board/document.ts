/** The document of a dashboard, as far as pages draw and edit it. What they do not know is kept as it is. */

export type WidgetType = "value" | "gauge" | "sparkline" | "series" | "table" | "status" | "text";
export type StateName = "ok" | "warn" | "critical";
export type Reduce = "last" | "min" | "max" | "mean" | "rate";

export interface Binding {
  datasourceId: string;
  /** Into the payload. Empty: the payload itself. */
  path?: string;
  label?: string;
  /** One topic of a datasource whose topic filter has a wildcard. */
  topic?: string;
  /** What viewers are shown in the place of `topic`. */
  topicDigest?: string;
  reduce?: Reduce;
  scale?: number;
  offset?: number;
}

export interface Threshold {
  /** It holds from this number up, until the next one. */
  from: number;
  state: StateName;
  label?: string;
}

export interface Column {
  path: string;
  header?: string;
  format?: "number" | "text" | "time";
}

export interface WidgetSettings {
  bindings?: Binding[];
  unit?: string;
  decimals?: number;
  min?: number;
  max?: number;
  thresholds?: Threshold[];
  windowSeconds?: number;
  columns?: Column[];
  emptyText?: string;
  /** Of a status: what a value means. Keys are values as text. */
  map?: Record<string, { state: StateName; label?: string }>;
  /** Of a text widget. */
  text?: string;
  [name: string]: unknown;
}

export interface Widget {
  id: string;
  type: WidgetType | string;
  title?: string;
  enabled?: boolean;
  settings?: WidgetSettings;
}

export interface Layout {
  i?: string;
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Pane {
  id: string;
  title?: string;
  layout: Layout;
  widgets: Widget[];
}

export interface DatasourceSettings {
  staleAfterSeconds?: number;
  history?: { seconds: number; everyMs: number };
  [name: string]: unknown;
}

export interface DatasourceEntry {
  id: string;
  title?: string;
  type: string;
  enabled?: boolean;
  settings?: DatasourceSettings;
}

export interface BoardSettings {
  theme?: "auto" | "dark" | "light";
  /** `browser`, `UTC`, or an IANA name. */
  timeZone?: string;
  windowSeconds?: number;
  kiosk?: boolean;
  [name: string]: unknown;
}

export interface BoardDocument {
  schemaVersion: 1;
  title: string;
  columns: number;
  width?: string;
  settings: BoardSettings;
  datasources: DatasourceEntry[];
  panes: Pane[];
  [name: string]: unknown;
}

/** A dashboard as the API answers it to this caller. */
export interface DashboardAnswer {
  id: string;
  ownerId: string | null;
  title: string;
  visibility: "private" | "link" | "public";
  revision: number;
  document: BoardDocument;
  canEdit: boolean;
  canShare: boolean;
  acl: { userId: string; email?: string; level: "viewer" | "editor" | "manager" }[] | null;
  shareToken: string | null;
  shareTokenVersion: number | null;
}

export const DEFAULT_WINDOW_S = 900;

/**
 * Panes with a place and widgets, whatever the document holds. A pane without a layout comes below the others; one
 * that is too wide is made narrower.
 */
export function panesOf(document: BoardDocument): Pane[] {
  const columns = document.columns || 3;
  let below = 0;
  const panes = (Array.isArray(document.panes) ? document.panes : []).filter((pane) => pane && typeof pane === "object");
  for (const { layout } of panes) below = Math.max(below, (layout?.y ?? 0) + (layout?.h ?? 0));
  return panes.map((pane, index) => {
    const layout = pane.layout ?? { x: 0, y: (below += 3) - 3, w: columns, h: 3 };
    const w = whole(layout.w, 1, columns);
    const x = whole(layout.x, 0, columns - w);
    return {
      ...pane,
      id: String(pane.id ?? index),
      layout: { ...layout, x, w, y: whole(layout.y, 0, 10_000), h: whole(layout.h, 1, 100) },
      widgets: (Array.isArray(pane.widgets) ? pane.widgets : []).filter((widget) => widget && widget.enabled !== false),
    };
  });
}

function whole(value: unknown, least: number, most: number): number {
  const number = typeof value === "number" && Number.isFinite(value) ? Math.round(value) : least;
  return Math.min(most, Math.max(least, number));
}
