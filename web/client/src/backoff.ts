/** Pauses before another try: full jitter, so that clients that failed together do not come back together. */

const FIRST_MS = 1_000;
const MOST_MS = 30_000;

/**
 * How long to wait before try number `failures + 1`, in milliseconds.
 *
 * A part, `drawn` of 0 to 1, of a bound that doubles from one second to thirty: "full jitter" of the AWS Architecture Blog's
 * "Exponential Backoff And Jitter". What the server asks for is waited in full, and the jitter comes on top.
 */
export function pause(failures: number, retryAfterMs = 0, drawn = Math.random()): number {
  return retryAfterMs + drawn * Math.min(MOST_MS, FIRST_MS * 2 ** failures);
}
