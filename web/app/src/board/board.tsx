/** A dashboard on the screen: panes in a grid, each with its state and the age of what it shows. */

import { DEFAULT_WINDOW_S, panesOf, type BoardDocument, type Pane } from "./document.js";
import { paneState, type Live } from "./live.js";
import { formatAge, zoneOf } from "../widgets/format.js";
import { WidgetView } from "../widgets/widget.js";

export function Board({ document, live, fill }: { document: BoardDocument; live: Live; fill?: boolean }) {
  const panes = panesOf(document);
  const rows = panes.reduce((most, { layout }) => Math.max(most, layout.y + layout.h), 1);
  if (!panes.length) return <p class="empty">This dashboard has no panes yet.</p>;
  return (
    <div
      class={`grid ${fill ? "fill" : ""} width-${document.width ?? "md"}`}
      style={{ "--columns": String(document.columns || 3), "--rows": String(rows) }}
    >
      {[...panes]
        .sort((a, b) => a.layout.y - b.layout.y || a.layout.x - b.layout.x)
        .map((pane) => (
          <PaneView key={pane.id} pane={pane} document={document} live={live} />
        ))}
    </div>
  );
}

function PaneView({ pane, document, live }: { pane: Pane; document: BoardDocument; live: Live }) {
  const { x, y, w, h } = pane.layout;
  const timeZone = zoneOf(document.settings?.timeZone);
  const { state, message } = paneState(live, pane.widgets);
  const place = { "--x": String(x + 1), "--y": String(y + 1), "--w": String(w), "--h": String(h) };
  return (
    <section class={`pane is-${state}`} style={place} data-pane={pane.id} data-state={state}>
      <header>
        <h2>{pane.title}</h2>
        <Age pane={pane} live={live} />
      </header>
      <div class="body">
        {pane.widgets.map((widget) => (
          <WidgetView
            key={widget.id}
            widget={widget}
            live={live}
            timeZone={timeZone}
            windowSeconds={widget.settings?.windowSeconds ?? document.settings?.windowSeconds ?? DEFAULT_WINDOW_S}
          />
        ))}
        {state === "error" || state === "ended" ? (
          <p class="trouble">
            <span class="state critical">
              <span aria-hidden="true">■</span> {message || "The source is in trouble."}
            </span>
            <span class="note">{state === "error" ? "It is tried again by itself." : "It will not come back by itself."}</span>
          </p>
        ) : null}
        {state === "stale" ? <Stale pane={pane} live={live} /> : null}
      </div>
    </section>
  );
}

const WORDS = { ended: "ended", error: "error", stale: "stale", connecting: "connecting", live: "", none: "" } as const;
const ICONS = { ended: "■", error: "■", stale: "◌", connecting: "…", live: "", none: "" } as const;

function Age({ pane, live }: { pane: Pane; live: Live }) {
  const { state, at } = paneState(live, pane.widgets);
  const now = live.now.value;
  const age = at === undefined ? "" : formatAge(now - at);
  return (
    <span class="age" data-age>
      {ICONS[state] ? <span aria-hidden="true">{ICONS[state]} </span> : null}
      {[WORDS[state], age].filter(Boolean).join(" · ")}
    </span>
  );
}

function Stale({ pane, live }: { pane: Pane; live: Live }) {
  const { at } = paneState(live, pane.widgets);
  const now = live.now.value;
  return (
    <p class="trouble">
      <span class="state">
        <span aria-hidden="true">◌</span> No value for {formatAge(now - (at ?? now))}: what is shown is old.
      </span>
    </p>
  );
}
