/** A proxy between a client and the edge that does what networks and servers do, on demand. */

import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";

/** An answer in place of the edge's; `lost` ends the connection without one. */
export type Fault = { status: number; body: unknown } | "lost";

export class Proxy {
  /** What is answered in place of the edge, by the end of the path. */
  readonly faults = new Map<string, Fault>();
  /**
   * The origin whose preflights are answered here, as functions/api/app.py does. The emulator answers each with 403
   * ("CORS not configured"), where API Gateway asks the function. What follows a preflight is the function's.
   */
  preflightFor: string | undefined;
  /** Nobody can connect, as when the server or the network is gone. */
  gone = false;
  /** Calls and handshakes so far: method and path, without the query. */
  readonly seen: string[] = [];
  readonly #server: Server;
  readonly #tunnels = new Set<[Socket, Socket]>();

  private constructor(
    readonly edge: URL,
    /** The loopback address to come from: each is another client to the limits. */
    readonly address: string,
  ) {
    this.#server = createServer((asked, answer) => this.#call(asked, answer));
    this.#server.on("upgrade", (asked, socket: Socket, head: Buffer) => this.#upgrade(asked, socket, head));
  }

  static async start(edge: string, address: string): Promise<Proxy> {
    const proxy = new Proxy(new URL(edge), address);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  count(end: string): number {
    return this.seen.filter((path) => path.endsWith(end)).length;
  }

  /** A page of the proxy says so in `Origin`. To the edge it is a page of its own. */
  #origin(text: string): string {
    return text === this.url ? this.edge.origin : text;
  }

  /** Open WebSockets. */
  get open(): number {
    return this.#tunnels.size;
  }

  /** The WebSockets are cut: both ends are told. */
  drop(): void {
    for (const pair of this.#tunnels) for (const socket of pair) socket.destroy();
  }

  /** The WebSockets that are open now carry nothing any more, and nobody is told. */
  freeze(): void {
    for (const [one, other] of this.#tunnels) {
      one.unpipe();
      other.unpipe();
      one.pause();
      other.pause();
    }
  }

  async stop(): Promise<void> {
    this.drop();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #fault(asked: IncomingMessage): Fault | undefined {
    const path = asked.url?.split("?")[0] ?? "";
    this.seen.push(`${asked.method} ${path}`);
    if (this.gone) return "lost";
    for (const [end, fault] of this.faults) if (path.endsWith(end)) return fault;
    return undefined;
  }

  #call(asked: IncomingMessage, answer: ServerResponse): void {
    const fault = this.#fault(asked);
    if (fault === "lost") return void asked.socket.destroy();
    if (this.preflightFor !== undefined && asked.method === "OPTIONS" && asked.headers.origin === this.preflightFor) {
      answer.writeHead(204, {
        "Access-Control-Allow-Origin": this.preflightFor,
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match",
      });
      return void answer.end();
    }
    if (fault) {
      answer.writeHead(fault.status, { "Content-Type": "application/json" });
      return void answer.end(JSON.stringify(fault.body));
    }
    const { hostname: host, port } = this.edge;
    const { url: path, method } = asked;
    const headers = { ...asked.headers, ...(asked.headers.origin && { origin: this.#origin(asked.headers.origin) }) };
    const onward = request({ host, port, path, method, headers, localAddress: this.address }, (came) => {
      answer.writeHead(came.statusCode ?? 502, came.headers);
      came.pipe(answer);
    });
    onward.on("error", () => asked.socket.destroy());
    asked.pipe(onward);
  }

  #upgrade(asked: IncomingMessage, socket: Socket, head: Buffer): void {
    const fault = this.#fault(asked);
    socket.on("error", () => undefined);
    if (fault) {
      if (fault !== "lost") socket.write(`HTTP/1.1 ${fault.status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return void socket.destroy();
    }
    const onward = connect({ host: this.edge.hostname, port: Number(this.edge.port), localAddress: this.address }, () => {
      const lines = [`GET ${asked.url} HTTP/1.1`];
      for (let n = 0; n < asked.rawHeaders.length; n += 2) lines.push(`${asked.rawHeaders[n]}: ${this.#origin(asked.rawHeaders[n + 1] ?? "")}`);
      onward.write(`${lines.join("\r\n")}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket);
      socket.pipe(onward);
    });
    const pair: [Socket, Socket] = [socket, onward];
    this.#tunnels.add(pair);
    const end = (): void => {
      this.#tunnels.delete(pair);
      for (const each of pair) each.destroy();
    };
    onward.on("error", end).on("close", end);
    socket.on("close", end);
  }
}
