/** The page of one dashboard, for watching. It loads the document, and again when it was saved. */

import { Refused } from "@tidegate/client";
import { useEffect, useState } from "preact/hooks";
import { Board } from "../board/board.js";
import type { DashboardAnswer } from "../board/document.js";
import { watch, watchedKey, type Live } from "../board/live.js";
import { applyTheme } from "../style/theme.js";
import { Header } from "./header.js";
import { load, loginOf } from "./load.js";
import { Notice, type Trouble } from "./notice.js";
import type { Place } from "./place.js";

/** The first pause before loading is tried again, and the longest, in milliseconds. */
const FIRST_MS = 1_000;
const MOST_MS = 30_000;

interface Shown {
  answer: DashboardAnswer;
  live: Live;
}

export function Viewer({ place }: { place: Place }) {
  const [shown, setShown] = useState<Shown>();
  const [trouble, setTrouble] = useState<Trouble>();

  useEffect(() => follow(place, setShown, setTrouble), [place]);
  useEffect(() => {
    if (!shown) return;
    document.title = shown.answer.title;
    applyTheme(place.theme ?? shown.answer.document.settings?.theme);
  }, [shown, place]);

  if (trouble && (trouble.final || !shown)) return <Notice trouble={trouble} place={place} />;
  if (!shown) return <p class="empty">Loading…</p>;
  const kiosk = place.kiosk || shown.answer.document.settings?.kiosk === true;
  return (
    <div class={kiosk ? "kiosk" : ""}>
      <Header answer={shown.answer} live={shown.live} kiosk={kiosk} />
      <main class="board-main">
        <Board document={shown.answer.document} live={shown.live} fill={kiosk} />
      </main>
    </div>
  );
}

/** Loads, watches, and loads again when the document was saved or everything ended. Returns what stops it. */
function follow(place: Place, show: (shown: Shown) => void, tell: (trouble: Trouble | undefined) => void): () => void {
  let over = false;
  let etag: string | null = null;
  let current: Shown | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let loading = false;
  let failures = 0;
  let checked = false;

  async function refresh(): Promise<void> {
    if (over || loading) return;
    loading = true;
    clearTimeout(timer);
    try {
      const loaded = await load(place, etag);
      if (over) return;
      failures = 0;
      if (loaded) {
        etag = loaded.etag;
        take(loaded.answer);
      } else if (current?.live.board.state === "ended") tell(endOf(current.live));
      if (current?.live.board.state !== "ended") tell(undefined);
    } catch (error) {
      if (over) return;
      const refused = error instanceof Refused ? error : new Refused("fault", String(error), true);
      const final = !refused.retryable;
      if (final) current?.live.stop();
      const wait = Math.random() * Math.min(MOST_MS, FIRST_MS * 2 ** failures++) + (refused.retryAfterMs ?? 0);
      tell({ code: refused.code, message: refused.message, final, retryAt: final ? undefined : Date.now() + wait });
      if (!final) timer = setTimeout(() => void refresh(), wait);
    } finally {
      loading = false;
    }
  }

  function take(answer: DashboardAnswer): void {
    const before = current;
    const same = before && watchedKey(before.answer.document) === watchedKey(answer.document) && before.live.board.state !== "ended";
    if (!same) before?.live.stop();
    const live = same ? before.live : begin(answer);
    current = { answer, live };
    show(current);
  }

  function begin(answer: DashboardAnswer): Live {
    checked = false;
    const live = watch(answer.document, {
      url: location.origin,
      dashboardId: answer.id,
      shareToken: place.kind === "link" ? place.key : undefined,
      login: () => loginOf(place),
    });
    live.board.subscribe(() => {
      if (live !== current?.live) return;
      const { revision, state } = live.board;
      if (revision !== undefined && revision > current.answer.revision) void refresh();
      // Why it ended, the page asks once. Then it asks nothing more.
      if (state === "ended" && !checked) {
        checked = true;
        void refresh();
      }
    });
    return live;
  }

  void refresh();
  return () => {
    over = true;
    clearTimeout(timer);
    current?.live.stop();
  };
}

function endOf({ board }: Live): Trouble {
  return { code: board.reason ?? "ended", message: board.message ?? "", final: true, retryAt: undefined };
}
