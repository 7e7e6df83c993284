/** Values, times and ages as people read them. */

/** What `make` returns for a key, made once: a formatter costs a hundred times as much as its use. */
function kept<Key extends unknown[], Made>(make: (...key: Key) => Made): (...key: Key) => Made {
  const made = new Map<string, Made>();
  return (...key) => {
    const name = JSON.stringify(key);
    let found = made.get(name);
    if (found === undefined) made.set(name, (found = make(...key)));
    return found;
  };
}

const numberFormat = kept(
  (least: number, most: number, useGrouping: boolean) =>
    new Intl.NumberFormat("en", { minimumFractionDigits: least, maximumFractionDigits: most, useGrouping }),
);

const timeFormat = kept(
  (timeZone: string | null, seconds: boolean) =>
    new Intl.DateTimeFormat("en-GB", {
      hour: "2-digit",
      minute: "2-digit",
      ...(seconds ? { second: "2-digit" } : {}),
      timeZone: timeZone ?? undefined,
    }),
);

/** A number with its decimals; without a wish, as many as are of use. */
export function formatNumber(value: number, decimals?: number): string {
  const digits = decimals ?? (Math.abs(value) >= 1_000 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
  const most = Math.min(10, Math.max(0, digits));
  return numberFormat(decimals === undefined ? 0 : most, most, Math.abs(value) >= 10_000).format(value);
}

/** Any value of a payload, as text on one line. */
export function formatValue(value: unknown, decimals?: number): string {
  if (typeof value === "number") return formatNumber(value, decimals);
  if (value === undefined || value === null) return "–";
  if (typeof value === "object") return JSON.stringify(value).slice(0, 500);
  return String(value).slice(0, 500);
}

/** How long ago, in the largest unit that fits. */
export function formatAge(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

/** A time zone by its name; undefined is the browser's. An unknown one counts as the browser's. */
export function zoneOf(name: string | undefined): string | undefined {
  if (!name || name === "browser") return undefined;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return undefined;
  }
}

export function formatTime(ms: number, timeZone: string | undefined, seconds = true): string {
  return timeFormat(timeZone ?? null, seconds).format(ms);
}
