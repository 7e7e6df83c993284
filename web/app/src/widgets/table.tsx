/** A table: a row for each topic, for each element of a list, or for each binding. */

import type { Sample } from "@tidegate/client";
import type { Binding, Column } from "../board/document.js";
import { about, asNumber, at, judge, scaled } from "./binding.js";
import { formatAge, formatTime, formatValue } from "./format.js";
import { StateLabel } from "./parts.js";
import type { WidgetProps } from "./widget.js";

const MOST_ROWS = 200;

interface Row {
  name: string;
  value: unknown;
  sample: Sample | undefined;
}

/** A topic without what all topics have before and after the part that differs. */
function shortNames(topics: readonly string[]): string[] {
  if (topics.length < 2) return [...topics];
  const parts = topics.map((topic) => topic.split("/"));
  const first = parts[0] ?? [];
  let head = 0;
  while (head < first.length - 1 && parts.every((part) => part[head] === first[head])) head++;
  let tail = 0;
  const shortest = parts.reduce((least, part) => Math.min(least, part.length), first.length);
  while (tail < shortest - head - 1 && parts.every((part) => part.at(-1 - tail) === first.at(-1 - tail))) tail++;
  return parts.map((part) => part.slice(head, part.length - tail).join("/"));
}

function rowsOf({ live }: WidgetProps, binding: Binding): Row[] {
  live.version(binding.datasourceId);
  const all = [...(live.board.datasource(binding.datasourceId)?.series.values() ?? [])];
  const series = all.filter(({ topic }) => about(binding, topic));
  if (series.length > 1) {
    series.sort((a, b) => ((a.topic ?? "") < (b.topic ?? "") ? -1 : 1));
    const names = shortNames(series.map(({ topic }) => topic ?? ""));
    return series.map(({ latest }, index) => ({
      name: names[index] ?? "",
      value: latest && at(latest.value, binding.path),
      sample: latest,
    }));
  }
  const latest = series[0]?.latest;
  const value = latest && at(latest.value, binding.path);
  if (Array.isArray(value)) return value.map((one, index) => ({ name: String(index + 1), value: one, sample: latest }));
  return [{ name: binding.label ?? binding.path ?? binding.datasourceId, value, sample: latest }];
}

export function TableWidget(props: WidgetProps) {
  const { live, settings, timeZone } = props;
  const bindings = settings.bindings ?? [];
  const all = bindings.flatMap((binding) => rowsOf(props, binding).map((row) => ({ ...row, binding })));
  const rows = all.slice(0, MOST_ROWS);
  const columns = settings.columns ?? [];
  const judged = !columns.length && (settings.thresholds?.length || settings.map);
  const now = live.now.value;
  if (!rows.some(({ sample }) => sample)) return <p class="note">{settings.emptyText ?? "No rows yet."}</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            {columns.map((column, index) => (
              <th key={index} scope="col" class={column.format === "text" ? "" : "n"}>
                {column.header ?? column.path}
              </th>
            ))}
            {columns.length ? null : (
              <th scope="col" class="n">
                Value
              </th>
            )}
            {judged ? <th scope="col">State</th> : null}
            <th scope="col" class="n">
              Age
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ name, value, sample, binding }, index) => (
            <tr key={index}>
              <th scope="row">{name}</th>
              {columns.map((column, place) => (
                <td key={place} class={column.format === "text" ? "" : "n"}>
                  {cell(at(value, column.path), column, settings.decimals, timeZone)}
                </td>
              ))}
              {columns.length ? null : (
                <td class="n">
                  {formatValue(number(value, binding), settings.decimals)} {settings.unit}
                </td>
              )}
              {judged ? (
                <td>
                  <StateLabel judged={judge(number(value, binding), settings)} />
                </td>
              ) : null}
              <td class="n note">{sample ? formatAge(now - sample.at) : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {all.length > rows.length ? (
        <p class="note">
          The first {rows.length} of {all.length} rows.
        </p>
      ) : null}
    </div>
  );
}

function number(value: unknown, binding: Binding): unknown {
  const found = typeof value === "boolean" ? undefined : asNumber(value);
  return found === undefined ? value : scaled(found, binding);
}

function cell(value: unknown, { format }: Column, decimals: number | undefined, timeZone: string | undefined): string {
  if (format === "time") {
    const ms = typeof value === "number" ? (value < 1e11 ? value * 1_000 : value) : Date.parse(String(value));
    return Number.isNaN(ms) ? "–" : formatTime(ms, timeZone);
  }
  const found = format === "text" || typeof value === "boolean" ? undefined : asNumber(value);
  return formatValue(found ?? value, decimals);
}
