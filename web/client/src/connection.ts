/** One WebSocket: frames in order, and an end that is always noticed. */

import type { Frame } from "./frames.js";

/** A connection that was silent for so long is asked whether it is alive. The platform ends it after ten minutes. */
const PING_AFTER_MS = 45_000;
/** How long the answer to a ping may take. A page is to be live again within 5 s, and connecting takes more than one. */
const PONG_MS = 3_000;
const OPEN_MS = 15_000;

export interface Handlers {
  open(): void;
  frame(frame: Frame): void;
  /** It is over. `opened` is false when the handshake was refused, or never answered. */
  close(opened: boolean): void;
}

export class Connection {
  readonly openedAt: number;
  /** The handshake was answered. */
  opened = false;
  #socket: WebSocket;
  #over = false;
  #heardAt: number;
  /** When the answer is due: to the handshake, or to a ping. */
  #due: number | undefined;

  constructor(
    url: string,
    readonly handlers: Handlers,
    readonly now: () => number,
    Socket: typeof WebSocket = WebSocket,
  ) {
    this.openedAt = this.#heardAt = now();
    this.#due = this.openedAt + OPEN_MS;
    this.#socket = new Socket(url);
    this.#socket.onopen = () => {
      this.opened = true;
      this.#heard();
      if (this.#over) this.#socket.close();
      else handlers.open();
    };
    this.#socket.onmessage = ({ data }) => {
      this.#heard();
      if (!this.#over) this.#read(data);
    };
    this.#socket.onerror = this.#socket.onclose = () => this.#end();
  }

  send(message: object): void {
    // A half-open socket takes what is sent. Whether it arrived, only an answer says.
    if (this.#socket.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  /** Ask now whether the other end is there, as after a sleep. */
  ping(): void {
    if (this.#due !== undefined) return;
    this.#due = this.now() + PONG_MS;
    this.send({ type: "ping" });
  }

  /** Called again and again: pings after silence, and ends what does not answer. */
  tick(): void {
    const now = this.now();
    if (now > (this.#due ?? now)) this.close();
    else if (now - this.#heardAt > PING_AFTER_MS) this.ping();
  }

  #heard(): void {
    this.#heardAt = this.now();
    this.#due = undefined;
  }

  /** Ends it, without waiting for the other end: a half-open socket would never answer. */
  close(): void {
    this.#end();
    this.#socket.close();
  }

  /** Ends it, and tells nobody. A browser warns of a socket that is closed before it is open, so that is awaited. */
  drop(): void {
    this.#over = true;
    if (this.opened) this.#socket.close();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.handlers.close(this.opened);
  }

  #read(data: unknown): void {
    let frame: Frame;
    try {
      frame = JSON.parse(data as string) as Frame;
    } catch {
      return; // Nothing of ours. The next frame may be.
    }
    for (const inner of frame?.messages ?? [frame]) if (inner?.type) this.handlers.frame(inner);
  }
}
