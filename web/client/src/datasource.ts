/** One datasource of a dashboard, as a page shows it. */

import type { Frame } from "./frames.js";
import { Series } from "./series.js";

/**
 * - `connecting`: no value may be expected yet.
 * - `live`: the stream stands. What is shown is what the source said last.
 * - `stale`: no value for `staleAfterSeconds`. What is shown may be old.
 * - `error`: the source or the subscription is in trouble, and it is tried again.
 * - `ended`: over for good. `reason` and `message` say why.
 */
export type DatasourceState = "connecting" | "live" | "stale" | "error" | "ended";

/** Topics of a wildcard that are kept. The server sends the newest 200 at subscribe. */
const MOST_TOPICS = 500;

export class Datasource {
  state: DatasourceState = "connecting";
  /** Why it ended, or is in error: a code of the protocol, or `reason` of what ended it. */
  reason: string | undefined;
  /** The same, for people. */
  message: string | undefined;
  /** The values of each topic. A datasource without a wildcard has one series, under the empty string. */
  series = new Map<string, Series>();

  /** @internal */ status: Frame["status"];
  /** @internal When to subscribe again, by the clock of deadlines. Undefined: nothing is to be done. */
  retryAt: number | undefined;
  /** @internal Subscribes that failed in a row. */
  failures = 0;
  /** @internal Whether what it was refused with was asked about already. */
  asked = false;
  /** @internal The `requestId` of the subscribe that has no ack yet. */
  pending: string | undefined;
  /** @internal The session token of the last subscribe. Undefined when the subscription ended and none was begun. */
  token: string | undefined;
  /** @internal The last subscribe was refused, or the subscription has ended. It is tried again. */
  failed = false;

  constructor(
    readonly id: string,
    readonly staleAfterMs: number,
    private readonly capacity: number,
  ) {}

  /** The series of a datasource without a wildcard; with one, the series that changed last. */
  get newest(): Series | undefined {
    let found: Series | undefined;
    for (const series of this.series.values()) {
      if (!found?.latest || (series.latest && series.latest.at > found.latest.at)) found = series;
    }
    return found;
  }

  /** The `seq` to recover from: the newest of all topics. Empty without any. */
  get seq(): string | undefined {
    return [...this.series.values()]
      .map(({ seq = "" }) => seq)
      .sort()
      .at(-1);
  }

  /** @internal */
  of(topic: string | undefined): Series {
    const key = topic ?? "";
    let series = this.series.get(key);
    if (!series) {
      this.series.set(key, (series = new Series(topic, this.capacity)));
      if (this.series.size > MOST_TOPICS) this.series.delete(this.series.keys().next().value as string);
    }
    return series;
  }

  /** @internal A new subscription begins. */
  renew(): void {
    for (const series of this.series.values()) series.renew();
  }

  /** @internal The state that follows from what is known now. Returns whether it is another one. */
  settle(now: number, connected: boolean): boolean {
    const before = this.state;
    if (before === "ended") return false;
    const at = this.newest?.latest?.at ?? now;
    // A fault says more than that nothing came because of it.
    if (connected && (this.failed || this.status === "error")) this.state = "error";
    else if (now - at > this.staleAfterMs) this.state = "stale";
    else this.state = connected && this.status === "connected" ? "live" : "connecting";
    return before !== this.state;
  }
}
