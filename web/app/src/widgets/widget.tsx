/** A widget by its type. A type that is not known says so, and keeps what it holds. */

import type { ComponentType } from "preact";
import type { Live } from "../board/live.js";
import type { Widget, WidgetSettings } from "../board/document.js";
import { GaugeWidget } from "./gauge.js";
import { SeriesWidget } from "./series.js";
import { SparklineWidget } from "./sparkline.js";
import { StatusWidget } from "./status.js";
import { TableWidget } from "./table.js";
import { TextWidget } from "./text.js";
import { ValueWidget } from "./value.js";

export interface WidgetProps {
  live: Live;
  settings: WidgetSettings;
  /** How far back it shows values, in seconds. */
  windowSeconds: number;
  /** Undefined: the browser's. */
  timeZone: string | undefined;
}

const KINDS: Record<string, ComponentType<WidgetProps>> = {
  value: ValueWidget,
  gauge: GaugeWidget,
  sparkline: SparklineWidget,
  series: SeriesWidget,
  table: TableWidget,
  status: StatusWidget,
  text: TextWidget,
};

export function WidgetView({ widget, ...props }: { widget: Widget } & Omit<WidgetProps, "settings">) {
  const Kind = Object.hasOwn(KINDS, widget.type) ? KINDS[widget.type] : undefined;
  const settings = widget.settings ?? {};
  if (!Kind) return <p class="note">A widget of type “{widget.type}” cannot be shown here.</p>;
  if (widget.type !== "text" && !settings.bindings?.length) return <p class="note">No value is chosen yet.</p>;
  return (
    <div class={`widget widget-${widget.type}`}>
      {widget.title ? <h3 class="note">{widget.title}</h3> : null}
      <Kind {...props} settings={settings} />
    </div>
  );
}
