/** How often a board is drawn. */

/**
 * The shortest time between two drawings, in milliseconds. A number that changes more often cannot be read, and each
 * drawing of a full board costs the device a frame.
 */
const DRAW_MS = 250;

/** Draws at once what comes after a pause, and otherwise once in `DRAW_MS`. A page that nobody sees is not drawn. */
export class Beat {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #drawn = Number.NEGATIVE_INFINITY;
  #asked = false;

  constructor(readonly draw: () => void) {
    document.addEventListener("visibilitychange", this.#flush);
  }

  /** Something changed. */
  ask(): void {
    this.#asked = true;
    this.#timer ??= setTimeout(this.#flush, Math.max(0, this.#drawn + DRAW_MS - performance.now()));
  }

  stop(): void {
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#flush);
  }

  #flush = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#asked || document.visibilityState === "hidden") return;
    this.#asked = false;
    this.#drawn = performance.now();
    this.draw();
  };
}
