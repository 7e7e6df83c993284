/** The values of one datasource, or of one topic of it: the newest, and those of a while. */

import type { Frame, Json, Point } from "./frames.js";

/** A value, or what stands for several of them. */
export interface Sample {
  /** Milliseconds since 1970, by the server's clock. */
  at: number;
  value: Json;
  /** It is a point of a history, and stands for all values of a bucket. `least` and `most` are of its numbers. */
  bucket?: boolean;
  least?: number | undefined;
  most?: number | undefined;
  seq?: string | undefined;
  /** Values may be missing before this one. */
  gap?: boolean;
}

export class Series {
  /** The newest value. Undefined before the first one, and after the source took it back. */
  latest: Sample | undefined;
  /** By time, the oldest first. At most `capacity`. */
  samples: Sample[] = [];
  /** The `seq` that a new subscription names as `since`: of the newest value, also of one that was taken back. */
  seq: string | undefined;
  #floor: string | undefined;
  /** Up to here all values are in buckets. */
  #covered = "";
  #gap = false;
  /** Where the gap is that `recovered` may fill. */
  #marked: Sample | undefined;

  constructor(
    readonly topic: string | undefined,
    readonly capacity: number,
  ) {}

  /** A new subscription begins, perhaps to another source. Its `seq` cannot be compared with those before. */
  renew(): void {
    this.#floor = this.#marked = undefined;
    this.#covered = "";
    this.#gap = this.samples.length > 0;
  }

  /** Nothing is missing since `renew`. */
  recovered(): void {
    this.#gap = false;
    if (this.#marked) delete this.#marked.gap;
  }

  /** Takes a value. Returns false for one that is not newer than what is shown. */
  take(frame: Frame, now: number): boolean {
    const at = Date.parse(frame.timestamp as string) || now;
    const { seq } = frame;
    const shown = this.latest;
    if (seq !== undefined) {
      // Of another subscription only the times can be compared.
      if (this.#floor !== undefined ? seq <= this.#floor : shown && (at < shown.at || seq === shown.seq)) {
        if (seq === shown?.seq) this.#floor = seq;
        return false;
      }
      this.seq = this.#floor = seq;
    }
    if (frame.deleted) {
      this.latest = undefined;
      return true;
    }
    const sample: Sample = { at, value: frame.payload ?? null, seq };
    this.latest = sample;
    if ((seq as string) <= this.#covered) return true;
    if (this.#gap) {
      sample.gap = true;
      this.#marked = sample;
      this.#gap = false;
    }
    const { samples } = this;
    let index = samples.length;
    while (index > 0 && (samples[index - 1] as Sample).at > at) index--;
    samples.splice(index, 0, sample);
    if (samples.length > this.capacity) samples.shift();
    return true;
  }

  /**
   * Takes points of a history. A point takes the place of the one with the same beginning, and of the values in it:
   * those of its bucket up to its `seq`.
   */
  merge(points: readonly Point[]): void {
    const buckets = new Map(this.samples.filter((sample) => sample.bucket).map((sample) => [sample.at, sample]));
    for (const { at: begin, last, least, most, seq } of points) {
      const at = Date.parse(begin);
      const value = last ?? least;
      if (!at || value == null) continue;
      const bucket: Sample = buckets.get(at) ?? { at, value };
      if ((bucket.seq as string) > seq) continue;
      Object.assign(bucket, { value, seq, bucket: true, least: least ?? undefined, most: most ?? undefined });
      buckets.set(at, bucket);
      if (seq > this.#covered) this.#covered = seq;
    }
    let bucket: Sample | undefined;
    this.samples = [...buckets.values(), ...this.samples.filter((sample) => !sample.bucket)]
      .sort((one, other) => one.at - other.at)
      .filter((sample) => {
        if (sample.bucket) bucket = sample;
        else if (bucket && (sample.seq as string) <= (bucket.seq as string)) {
          if (sample.gap) bucket.gap = true;
          if (sample === this.#marked) this.#marked = bucket;
          return false;
        }
        return true;
      })
      .slice(-this.capacity);
  }
}
