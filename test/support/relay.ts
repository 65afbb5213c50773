/** A network between a test and a server that the test can break: connections end, or bytes vanish. */
import { createServer, type Server, Socket } from "node:net";

/** Listens on a port of its own and passes everything on to the host and port of `url`. */
export class Relay {
  readonly #target: URL;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;
  #isSilent = false;

  constructor(url: string) {
    this.#target = new URL(url);
  }

  /** The given URL by way of the relay; once it was opened. */
  get url(): string {
    const relayed = new URL(this.#target);
    relayed.port = String(this.#port);
    return relayed.href;
  }

  /** Takes connections, on the same port every time. */
  async open(): Promise<void> {
    this.#server = createServer((near) => {
      const far = new Socket().connect(Number(this.#target.port), this.#target.hostname);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on("data", (bytes) => {
          if (!this.#isSilent) to.write(bytes);
        });
        from.on("error", () => to.destroy());
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
      }
    });
    const listening = Promise.withResolvers<void>();
    this.#server.once("error", listening.reject);
    this.#server.listen(this.#port, "127.0.0.1", () => listening.resolve());
    await listening.promise;
    const address = this.#server.address();
    if (address !== null && typeof address !== "string") this.#port = address.port;
  }

  /** Bytes vanish from now on; connections stay. */
  silence(): void {
    this.#isSilent = true;
  }

  /** Connections break, and new ones are refused until `open`. */
  close(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    this.#isSilent = false;
  }
}
