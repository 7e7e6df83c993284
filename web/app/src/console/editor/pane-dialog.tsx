/** A pane: its title, its widgets, what they are bound to, and how it is shown. */

import { useState } from "preact/hooks";
import type { Binding, BoardDocument, Column, Pane, Reduce, StateName, Threshold, Widget, WidgetSettings, WidgetType } from "../../board/document.js";
import type { Live } from "../../board/live.js";
import { at } from "../../widgets/binding.js";
import { formatValue } from "../../widgets/format.js";
import { parsePath } from "../../widgets/path.js";
import { Dialog } from "../ui/dialog.js";
import { Choice, Field } from "../ui/field.js";
import { freshId } from "./draft.js";
import { Tree } from "./tree.js";

const TYPES: readonly (readonly [WidgetType, string])[] = [
  ["value", "Value"],
  ["gauge", "Gauge"],
  ["sparkline", "Sparkline"],
  ["series", "Time series"],
  ["table", "Table"],
  ["status", "Status"],
  ["text", "Text"],
];
const REDUCES: readonly (readonly [Reduce, string])[] = [
  ["last", "the last value"],
  ["min", "the least of the window"],
  ["max", "the most of the window"],
  ["mean", "the mean of the window"],
  ["rate", "the change in a second"],
];
const STATES: readonly (readonly [StateName, string])[] = [
  ["ok", "● OK"],
  ["warn", "▲ Warning"],
  ["critical", "■ Critical"],
];
/** With fields that say nothing, as a form has them. */
type Loose<T> = { [K in keyof T]?: T[K] | undefined };

/** Widgets that show several bindings. */
const SEVERAL = ["value", "sparkline", "series", "table", "status"];

interface Props {
  document: BoardDocument;
  live: Live | undefined;
  pane: Pane;
  isNew: boolean;
  onUse: (pane: Pane) => void;
  onClose: () => void;
  onNewDatasource: () => void;
}

export function PaneDialog({ document, live, pane, isNew, onUse, onClose, onNewDatasource }: Props) {
  const [title, setTitle] = useState(pane.title ?? "");
  const [widgets, setWidgets] = useState<Widget[]>(pane.widgets);
  const set = (index: number, widget: Widget): void => setWidgets(widgets.map((one, place) => (place === index ? widget : one)));
  const wrong = widgets.some(({ settings }) => settings?.bindings?.some(({ path }) => parsePath(path ?? "") === null));

  function add(): void {
    const id = freshId("widget", widgets.map((one) => one.id), "widget");
    setWidgets([...widgets, { id, type: "value", settings: { bindings: firstBinding(document) } }]);
  }

  return (
    <Dialog
      title={isNew ? "New pane" : `Pane: ${pane.title || pane.id}`}
      wide
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" class="primary" disabled={wrong} onClick={() => onUse({ ...pane, title: title.trim(), widgets })}>
            {isNew ? "Add pane" : "Use these settings"}
          </button>
        </>
      }
    >
      <Field label="Title of the pane" value={title} onInput={setTitle} placeholder="Boiler temperature" />
      {document.datasources.length ? null : (
        <p class="hint">
          There is no datasource yet.{" "}
          <button type="button" class="quiet small" onClick={onNewDatasource}>
            Make one first
          </button>
        </p>
      )}
      {widgets.map((widget, index) => (
        <WidgetForm
          key={widget.id}
          document={document}
          live={live}
          widget={widget}
          onChange={(next) => set(index, next)}
          onDelete={widgets.length > 1 ? () => setWidgets(widgets.filter((_, place) => place !== index)) : undefined}
        />
      ))}
      <button type="button" class="small" onClick={add}>
        Add another widget to this pane
      </button>
    </Dialog>
  );
}

export function firstBinding(document: BoardDocument): Binding[] {
  const first = document.datasources[0];
  return first ? [{ datasourceId: first.id, path: "" }] : [];
}

function WidgetForm(props: {
  document: BoardDocument;
  live: Live | undefined;
  widget: Widget;
  onChange: (widget: Widget) => void;
  onDelete: (() => void) | undefined;
}) {
  const { document, live, widget, onChange, onDelete } = props;
  const settings = widget.settings ?? {};
  const change = (next: Loose<WidgetSettings>): void => onChange({ ...widget, settings: cleaned({ ...settings, ...next }) });
  const bindings = settings.bindings ?? [];
  const known = TYPES.some(([type]) => type === widget.type);
  if (!known) {
    return (
      <fieldset>
        <legend>{widget.type}</legend>
        <p class="note">This widget was imported and cannot be shown here. It is kept, and exported as it was.</p>
      </fieldset>
    );
  }
  return (
    <fieldset>
      <legend>{TYPES.find(([type]) => type === widget.type)?.[1]}</legend>
      <div class="columns">
        <Choice label="Shown as" value={widget.type as WidgetType} choices={TYPES} onChange={(type) => onChange({ ...widget, type })} />
        {widget.type === "text" ? null : (
          <>
            <Field label="Unit" value={settings.unit ?? ""} onInput={(unit) => change({ unit })} placeholder="°C" />
            <NumberField label="Decimals" value={settings.decimals} onChange={(decimals) => change({ decimals })} min={0} />
          </>
        )}
        {widget.type === "gauge" || widget.type === "series" ? (
          <>
            <NumberField label="Least" value={settings.min} onChange={(min) => change({ min })} />
            <NumberField label="Most" value={settings.max} onChange={(max) => change({ max })} />
          </>
        ) : null}
        {widget.type === "series" || widget.type === "sparkline" ? (
          <NumberField
            label="Window, in seconds"
            value={settings.windowSeconds}
            onChange={(windowSeconds) => change({ windowSeconds })}
            min={10}
          />
        ) : null}
      </div>
      {widget.type === "text" ? (
        <Field label="Text" rows={4} value={settings.text ?? ""} onInput={(text) => change({ text })} />
      ) : (
        <>
          {bindings.map((binding, index) => (
            <BindingForm
              key={index}
              document={document}
              live={live}
              binding={binding}
              several={bindings.length > 1 || widget.type !== "gauge"}
              onChange={(next) => change({ bindings: bindings.map((one, place) => (place === index ? next : one)) })}
              onDelete={bindings.length > 1 ? () => change({ bindings: bindings.filter((_, place) => place !== index) }) : undefined}
            />
          ))}
          {!bindings.length || SEVERAL.includes(widget.type) ? (
            <button
              type="button"
              class="small"
              disabled={!document.datasources.length}
              onClick={() => change({ bindings: [...bindings, ...firstBinding(document)] })}
            >
              Add a value
            </button>
          ) : null}
          {widget.type === "table" ? <Columns columns={settings.columns ?? []} onChange={(columns) => change({ columns })} /> : null}
          <Thresholds thresholds={settings.thresholds ?? []} onChange={(thresholds) => change({ thresholds })} />
        </>
      )}
      {onDelete ? (
        <p>
          <button type="button" class="quiet small" onClick={onDelete}>
            Delete this widget
          </button>
        </p>
      ) : null}
    </fieldset>
  );
}

function BindingForm(props: {
  document: BoardDocument;
  live: Live | undefined;
  binding: Binding;
  several: boolean;
  onChange: (binding: Binding) => void;
  onDelete: (() => void) | undefined;
}) {
  const { document, live, binding, several, onChange, onDelete } = props;
  const [open, setOpen] = useState(false);
  live?.version(binding.datasourceId);
  const datasource = live?.board.datasource(binding.datasourceId);
  const topics = [...(datasource?.series.values() ?? [])].flatMap(({ topic }) => (topic === undefined ? [] : [topic]));
  const series = binding.topic === undefined ? datasource?.newest : datasource?.series.get(binding.topic);
  const payload = series?.latest?.value;
  const wrong = parsePath(binding.path ?? "") === null;
  return (
    <div class="binding">
      <div class="columns">
        <Choice
          label="Datasource"
          value={binding.datasourceId}
          choices={[
            ...(document.datasources.some(({ id }) => id === binding.datasourceId)
              ? []
              : [[binding.datasourceId, `${binding.datasourceId} (not there)`] as const]),
            ...document.datasources.map(({ id, title }) => [id, title || id] as const),
          ]}
          onChange={(datasourceId) => onChange({ ...binding, datasourceId })}
        />
        <Field
          label="Path"
          mono
          value={binding.path ?? ""}
          onInput={(path) => onChange({ ...binding, path })}
          placeholder="the payload itself"
          fault={wrong ? 'A path is such as a.b[0]["c"][*]' : undefined}
          hint={payload === undefined || wrong ? undefined : `Reads as ${formatValue(at(payload, binding.path))}`}
        />
        {several ? <Field label="Label" value={binding.label ?? ""} onInput={(label) => onChange(trimmed({ ...binding, label }))} /> : null}
        {topics.length ? (
          <Choice
            label="Topic"
            value={binding.topic ?? ""}
            choices={[["", "All of them"], ...topics.sort().map((topic) => [topic, topic] as const)]}
            onChange={(topic) => onChange(trimmed({ ...binding, topic }))}
          />
        ) : null}
        <Choice
          label="Shows"
          value={binding.reduce ?? "last"}
          choices={REDUCES}
          onChange={(reduce) => onChange(trimmed({ ...binding, reduce }))}
        />
        <NumberField label="Times" value={binding.scale} onChange={(scale) => onChange(trimmed({ ...binding, scale }))} />
        <NumberField label="Plus" value={binding.offset} onChange={(offset) => onChange(trimmed({ ...binding, offset }))} />
      </div>
      <p class="row">
        <button type="button" class="quiet small" disabled={payload === undefined} aria-expanded={open} onClick={() => setOpen(!open)}>
          {payload === undefined ? "No message yet: save to see it live" : open ? "Hide the message" : "Choose from the last message"}
        </button>
        <span class="grow" />
        {onDelete ? (
          <button type="button" class="quiet small" onClick={onDelete}>
            Remove
          </button>
        ) : null}
      </p>
      {open && payload !== undefined ? (
        <Tree value={payload} chosen={binding.path ?? ""} onChoose={(path) => onChange({ ...binding, path })} />
      ) : null}
    </div>
  );
}

function Thresholds({ thresholds, onChange }: { thresholds: Threshold[]; onChange: (thresholds: Threshold[]) => void }) {
  const set = (index: number, next: Threshold): void => onChange(thresholds.map((one, place) => (place === index ? next : one)));
  return (
    <div>
      {thresholds.map((threshold, index) => (
        <div key={index} class="columns threshold">
          <NumberField label="From" value={threshold.from} onChange={(from) => set(index, { ...threshold, from: from ?? 0 })} />
          <Choice label="It is" value={threshold.state} choices={STATES} onChange={(state) => set(index, { ...threshold, state })} />
          <Field label="Called" value={threshold.label ?? ""} onInput={(label) => set(index, { ...threshold, label })} placeholder="too hot" />
          <button type="button" class="quiet small" onClick={() => onChange(thresholds.filter((_, place) => place !== index))}>
            Remove
          </button>
        </div>
      ))}
      <button
        type="button"
        class="quiet small"
        onClick={() => onChange([...thresholds, { from: (thresholds.at(-1)?.from ?? 0) + 10, state: "warn" }])}
      >
        Add a threshold
      </button>
    </div>
  );
}

function Columns({ columns, onChange }: { columns: Column[]; onChange: (columns: Column[]) => void }) {
  const set = (index: number, next: Column): void => onChange(columns.map((one, place) => (place === index ? next : one)));
  return (
    <div>
      {columns.map((column, index) => (
        <div key={index} class="columns threshold">
          <Field label="Column: path" mono value={column.path} onInput={(path) => set(index, { ...column, path })} />
          <Field label="Header" value={column.header ?? ""} onInput={(header) => set(index, { ...column, header })} />
          <Choice
            label="As"
            value={column.format ?? "number"}
            choices={[
              ["number", "Number"],
              ["text", "Text"],
              ["time", "Time"],
            ]}
            onChange={(format) => set(index, { ...column, format })}
          />
          <button type="button" class="quiet small" onClick={() => onChange(columns.filter((_, place) => place !== index))}>
            Remove
          </button>
        </div>
      ))}
      <button type="button" class="quiet small" onClick={() => onChange([...columns, { path: "" }])}>
        Add a column
      </button>
    </div>
  );
}

function NumberField(props: { label: string; value: number | undefined; onChange: (value: number | undefined) => void; min?: number }) {
  return (
    <Field
      label={props.label}
      type="number"
      {...(props.min === undefined ? {} : { min: props.min })}
      value={props.value === undefined ? "" : String(props.value)}
      onInput={(text) => props.onChange(text.trim() === "" || Number.isNaN(Number(text)) ? undefined : Number(text))}
    />
  );
}

/** Without what says nothing, so that a document stays small, and one that is opened and closed stays equal. */
function cleaned(settings: Loose<WidgetSettings>): WidgetSettings {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined && value !== "")) as WidgetSettings;
}

function trimmed(binding: Loose<Binding>): Binding {
  const kept = Object.entries(binding).filter(([name, value]) => value !== undefined && (value !== "" || name === "path"));
  return Object.fromEntries(kept.filter(([name, value]) => !(name === "reduce" && value === "last"))) as unknown as Binding;
}
