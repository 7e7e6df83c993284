/** A refusal. `retryable` false means: do not ask again with what you hold. */
export class Refused extends Error {
  override name = "Refused";
  /**
   * @param code what programs decide by, such as `denied` or `STREAM_RATE_LIMITED`.
   * @param message what people are shown.
   * @param retryable whether asking again may help. False is a denial; true is a limit, or that it could not be checked.
   * @param retryAfterMs how long it makes no sense to ask again, in milliseconds.
   */
  constructor(
    readonly code: string,
    message: string | undefined,
    readonly retryable: boolean,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}
