/** The grid of the editor: panes that are moved and resized with the pointer or the keyboard. */

import { useRef, useState } from "preact/hooks";
import { DEFAULT_WINDOW_S, type BoardDocument, type Layout, type Pane } from "../../board/document.js";
import type { Live } from "../../board/live.js";
import { zoneOf } from "../../widgets/format.js";
import { WidgetView } from "../../widgets/widget.js";
import { arranged, resized, stepped, type Direction } from "./layout.js";

const KEYS: Record<string, Direction> = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
const ROW_PX = 56;
const GAP_PX = 8;

interface Props {
  document: BoardDocument;
  live: Live | undefined;
  onPanes: (panes: Pane[], what: string) => void;
  onEdit: (pane: Pane) => void;
  onDelete: (pane: Pane) => void;
  say: (text: string) => void;
}

interface Drag {
  id: string;
  kind: "move" | "resize";
  from: { x: number; y: number };
  layout: Layout;
}

export function Grid({ document, live, onPanes, onEdit, onDelete, say }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const [drag, setDrag] = useState<Drag>();
  const [shown, setShown] = useState<Pane[]>();
  const { columns, panes } = document;
  const drawn = shown ?? panes;

  function begin(event: PointerEvent, pane: Pane, kind: Drag["kind"]): void {
    if (event.button !== 0) return;
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    setDrag({ id: pane.id, kind, from: { x: event.clientX, y: event.clientY }, layout: pane.layout });
  }

  function move(event: PointerEvent): void {
    if (!drag || !place.current) return;
    const column = (place.current.clientWidth - GAP_PX) / columns;
    const dx = Math.round((event.clientX - drag.from.x) / column);
    const dy = Math.round((event.clientY - drag.from.y) / (ROW_PX + GAP_PX));
    const { x, y, w, h } = drag.layout;
    const wish = drag.kind === "move" ? { x: x + dx, y: y + dy } : { w: Math.min(w + dx, columns - x), h: h + dy };
    setShown(arranged(panes, drag.id, wish, columns));
  }

  function end(): void {
    if (drag && shown) onPanes(shown, drag.kind === "move" ? "Pane moved" : "Pane resized");
    setDrag(undefined);
    setShown(undefined);
  }

  function key(event: KeyboardEvent, pane: Pane): void {
    if (event.target !== event.currentTarget) return;
    const to = KEYS[event.key];
    if (to && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      const next = event.shiftKey ? resized(panes, pane.id, to, columns) : stepped(panes, pane.id, to, columns);
      onPanes(next, event.shiftKey ? "Pane resized" : "Pane moved");
      const now = next.find(({ id }) => id === pane.id)?.layout;
      if (now) say(`Column ${now.x + 1}, row ${now.y + 1}, ${now.w} wide, ${now.h} high`);
    } else if (event.key === "Enter") {
      event.preventDefault();
      onEdit(pane);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      onDelete(pane);
    }
  }

  return (
    <div class={`grid editing width-${document.width ?? "md"}`} ref={place} style={{ "--columns": String(columns) }}>
      {drawn.map((pane) => {
        const { x, y, w, h } = pane.layout;
        const title = pane.title || "Pane without a title";
        return (
          <section
            key={pane.id}
            class={`pane ${drag?.id === pane.id ? "dragged" : ""}`}
            style={{ "--x": String(x + 1), "--y": String(y + 1), "--w": String(w), "--h": String(h) }}
            tabIndex={0}
            data-pane={pane.id}
            aria-label={`${title}. Arrow keys move it, with Shift they resize it, Enter edits it, Delete deletes it.`}
            onKeyDown={(event) => key(event, pane)}
          >
            <header
              class="handle"
              onPointerDown={(event) => begin(event, pane, "move")}
              onPointerMove={move}
              onPointerUp={end}
              onPointerCancel={end}
            >
              <h2>{title}</h2>
            </header>
            <div class="pane-tools">
              <button type="button" class="quiet small" onClick={() => onEdit(pane)} aria-label={`Edit ${title}`}>
                Edit
              </button>
              <button type="button" class="quiet small" onClick={() => onDelete(pane)} aria-label={`Delete ${title}`}>
                <span aria-hidden="true">✕</span>
              </button>
            </div>
            <div class="body">
              {live
                ? pane.widgets.map((widget) => (
                    <WidgetView
                      key={widget.id}
                      widget={widget}
                      live={live}
                      timeZone={zoneOf(document.settings.timeZone)}
                      windowSeconds={widget.settings?.windowSeconds ?? document.settings.windowSeconds ?? DEFAULT_WINDOW_S}
                    />
                  ))
                : null}
            </div>
            <span
              class="corner"
              aria-hidden="true"
              onPointerDown={(event) => begin(event, pane, "resize")}
              onPointerMove={move}
              onPointerUp={end}
              onPointerCancel={end}
            />
          </section>
        );
      })}
    </div>
  );
}
