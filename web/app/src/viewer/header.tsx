/** The bar of a viewer page: the title, the time, and whether it is live. */

import type { DashboardAnswer } from "../board/document.js";
import type { Live } from "../board/live.js";
import { formatTime, zoneOf } from "../widgets/format.js";

export function Header({ answer, live, kiosk }: { answer: DashboardAnswer; live: Live; kiosk: boolean }) {
  const zone = zoneOf(answer.document.settings?.timeZone);
  return (
    <header class="bar">
      <h1>{answer.title}</h1>
      <span class="grow" />
      <span class="pill optional">
        {formatTime(live.now.value, zone)} {zone ?? ""}
      </span>
      <LivePill live={live} />
      {answer.canEdit && !kiosk ? (
        <a class="button optional" href={`/#/dashboards/${encodeURIComponent(answer.id)}/edit`}>
          Edit
        </a>
      ) : null}
    </header>
  );
}

const WORDS = {
  idle: "Not live",
  connecting: "Connecting",
  live: "Live",
  waiting: "Reconnecting",
  offline: "Offline",
  ended: "Ended",
} as const;

export function LivePill({ live }: { live: Live }) {
  live.changes.value;
  live.now.value;
  const { board } = live;
  const all = [...board.datasources.values()];
  const troubled = all.filter(({ state }) => state === "error" || state === "ended").length;
  const kind = board.state === "live" ? "live" : board.state === "ended" ? "error" : "stale";
  const retry = board.retryInMs;
  return (
    <span class={`pill ${kind}`} role="status" data-live={board.state} title={board.message}>
      <i aria-hidden="true" />
      {WORDS[board.state]}
      {retry === undefined ? "" : ` in ${Math.ceil(retry / 1_000)} s`}
      {board.state === "live" && troubled ? ` · ${troubled} of ${all.length} in trouble` : ""}
    </span>
  );
}
