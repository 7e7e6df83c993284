/** The live dashboard as signals, so that only what changed is drawn again. */

import { batch, signal, type Signal } from "@preact/signals";
import { Dashboard, Refused, type DatasourceState, type Options } from "@tidegate/client";
import { Beat } from "./beat.js";
import { panesOf, type BoardDocument, type Widget } from "./document.js";

export interface Live {
  readonly board: Dashboard;
  /** Grows with each change of a datasource. Reading it draws the reader again with the next change. */
  version(datasourceId: string): number;
  /** Grows with each change of the dashboard's own state. */
  readonly changes: Signal<number>;
  /** The server's time, moved once a second. For ages. */
  readonly now: Signal<number>;
  /** Ends everything. */
  stop(): void;
}

const SECOND_MS = 1_000;

/** Watches the enabled datasources that a widget is bound to, and reads their histories. */
export function watch(document: BoardDocument, options: Omit<Options, "datasources">): Live {
  const used = new Set(panesOf(document).flatMap(({ widgets }) => widgets.flatMap(boundTo)));
  const datasources = (document.datasources ?? []).filter(({ id, enabled }) => enabled !== false && used.has(id));
  const board = new Dashboard({
    ...options,
    datasources: datasources.map(({ id, settings }) => ({ id, staleAfterSeconds: settings?.staleAfterSeconds })),
  });
  const versions = new Map(datasources.map(({ id }) => [id, signal(0)]));
  const changes = signal(0);
  const now = signal(board.serverTime);
  const withHistory = new Set(datasources.filter(({ settings }) => settings?.history).map(({ id }) => id));
  const asked = new Set<string>();
  const waits = new Set<ReturnType<typeof setTimeout>>();
  let pending = new Set<string>();

  const beat = new Beat(() =>
    batch(() => {
      for (const id of pending) {
        const version = versions.get(id);
        if (version) version.value++;
      }
      pending = new Set();
      changes.value++;
    }),
  );
  const stopListening = board.subscribe((changed) => {
    for (const id of changed) {
      pending.add(id);
      if (withHistory.has(id)) askHistory(id);
    }
    beat.ask();
  });
  const timer = setInterval(() => (now.value = board.serverTime), SECOND_MS);

  /** Once for each topic: what was before the page was opened. What came while it was away, `subscribe` asks for. */
  function askHistory(id: string): void {
    for (const topic of board.datasource(id)?.series.keys() ?? []) {
      const key = JSON.stringify([id, topic]);
      if (asked.has(key) || asked.size >= MOST_HISTORIES) continue;
      asked.add(key);
      readHistory(id, topic || undefined);
    }
  }

  /** Where many open a board at once behind one address, some are told to ask later. Other faults: it begins with what is live. */
  function readHistory(id: string, topic: string | undefined): void {
    board.history(id, topic).catch((error: unknown) => {
      if (!(error instanceof Refused) || !error.retryAfterMs) return;
      const wait = setTimeout(() => {
        waits.delete(wait);
        readHistory(id, topic);
      }, error.retryAfterMs);
      waits.add(wait);
    });
  }

  // A connection that watches nothing would be closed by the server, again and again.
  if (datasources.length) board.start();
  return {
    board,
    version: (id) => versions.get(id)?.value ?? 0,
    changes,
    now,
    stop() {
      clearInterval(timer);
      for (const wait of waits) clearTimeout(wait);
      stopListening();
      beat.stop();
      board.stop();
    },
  };
}

/** Reads of histories on opening, so that a wildcard of hundreds of topics does not use up the viewer's rate. */
const MOST_HISTORIES = 50;

/** What a person needs to know first: a datasource in trouble before one that is old, before one that is live. */
const ORDER: readonly DatasourceState[] = ["ended", "error", "stale", "connecting", "live"];

export interface PaneState {
  state: DatasourceState | "none";
  message: string | undefined;
  /** When the oldest of its newest values came. Undefined before any. */
  at: number | undefined;
}

/** What a board must be watched anew for when it changes. */
export function watchedKey({ datasources, panes }: BoardDocument): string {
  return JSON.stringify([datasources, panes.map(({ widgets }) => widgets?.map(({ settings }) => settings?.bindings))]);
}

/** The datasources that a widget is bound to. */
export function boundTo({ settings }: Widget): string[] {
  return (Array.isArray(settings?.bindings) ? settings.bindings : []).map(({ datasourceId }) => datasourceId);
}

/** The state of a pane: the worst of the datasources that its widgets are bound to. */
export function paneState(live: Live, widgets: readonly Widget[]): PaneState {
  const ids = new Set(widgets.flatMap(boundTo));
  let found: PaneState = { state: "none", message: undefined, at: undefined };
  for (const id of ids) {
    live.version(id);
    const datasource = live.board.datasource(id);
    if (!datasource) {
      found = { ...found, state: "ended", message: `There is no datasource "${id}".` };
      continue;
    }
    const at = datasource.newest?.latest?.at;
    if (at !== undefined) found.at = Math.min(found.at ?? at, at);
    if (found.state === "none" || ORDER.indexOf(datasource.state) < ORDER.indexOf(found.state)) {
      found = { ...found, state: datasource.state, message: datasource.message };
    }
  }
  return found;
}
