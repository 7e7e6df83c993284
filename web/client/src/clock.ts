/** The server's clock, and a clock for deadlines. Neither trusts the clock of the device. */

export class Clock {
  #offset = 0;

  /**
   * @param monotonic milliseconds that only go forward. They may stand still while the device sleeps.
   */
  constructor(readonly monotonic: () => number) {
    this.#offset = Date.now() - monotonic();
  }

  /** The server's time now, in milliseconds since 1970. Before the first `observe` it is the device's. */
  now(): number {
    return this.monotonic() + this.#offset;
  }

  /** The monotonic clock stood still for so long, in milliseconds. */
  skip(milliseconds: number): void {
    this.#offset += milliseconds;
  }

  /** The server's time is this, about now: of an answer that was just received. ISO 8601. */
  observe(timestamp: string | undefined): void {
    const at = Date.parse(timestamp as string);
    if (at) this.#offset = at - this.monotonic();
  }
}
