/** A page that says what happened, what it means, and what to do. */

import { useEffect, useState } from "preact/hooks";
import type { Place } from "./place.js";

export interface Trouble {
  code: string;
  message: string;
  /** Nothing is tried any more. */
  final: boolean;
  /** By the clock of this device, in milliseconds since 1970. */
  retryAt: number | undefined;
}

export function Notice({ trouble, place }: { trouble: Trouble; place: Place }) {
  const { title, meaning } = words(trouble, place);
  return (
    <main class="notice" aria-live="assertive">
      <h1>{title}</h1>
      <p>{meaning}</p>
      {trouble.retryAt === undefined ? null : <Countdown until={trouble.retryAt} />}
      <p>
        {trouble.final && place.kind === "member" ? (
          <a class="button primary" href={`/#/sign-in?then=${encodeURIComponent(location.pathname)}`}>
            Sign in
          </a>
        ) : (
          <button type="button" onClick={() => location.reload()}>
            Try again
          </button>
        )}
      </p>
      <p class="faint">
        <code>{trouble.code}</code>
      </p>
    </main>
  );
}

function words({ code, final }: Trouble, { kind }: Place): { title: string; meaning: string } {
  if (kind === "unknown") return { title: "There is nothing here", meaning: "Check the address." };
  if (!final) {
    return code === "network"
      ? { title: "The server cannot be reached", meaning: "Check the connection of this device. It is tried again by itself." }
      : { title: "The dashboard cannot be loaded now", meaning: "This says nothing about your rights. It is tried again by itself." };
  }
  if (code === "not_found" || code === "revoked" || code === "denied" || code === "STREAM_AUTH_FAILED") {
    if (kind === "link") {
      return { title: "This link does not work any longer", meaning: "It was replaced or taken back. Ask the dashboard's owner for a new one." };
    }
    if (kind === "public") {
      return { title: "This dashboard is not public", meaning: "It was taken back, or never was. Ask its owner for a link." };
    }
    return { title: "There is no such dashboard for you", meaning: "Sign in, or ask its owner to add you as a member." };
  }
  if (code === "unauthenticated" || code === "token_expired") return { title: "Sign in to watch", meaning: "Your sign-in has ended." };
  if (code === "disabled") return { title: "Live data is switched off", meaning: "The operator has switched it off. Come back later." };
  return { title: "The dashboard has ended", meaning: "Ask its owner, and name the code below." };
}

function Countdown({ until }: { until: number }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return <p class="note">Next try in {Math.max(0, Math.ceil((until - now) / 1_000))} s.</p>;
}
