/** A worker without engines, as an HTTP server: it registers, reports, and streams when a test tells it to go on. */
import { gatewayPaths, workerPaths } from "../../schema/cluster/protocol.ts";
import { encodeSseFrame, sseHeaders } from "../../schema/sse.ts";
import { makeHeartbeat, makePlacement, makeRegisterRequest } from "./cluster-facts.ts";

export interface WorkerServerOptions {
  readonly gateway_url: string;
  readonly cluster_token: string;
  /** Checkpoint that the worker has on disk. */
  readonly checkpoint: string;
}

/** Every generation is "Hello" at once, then " world" when it is released. */
export class WorkerServer {
  /** Ids of generations that were asked for, and of those that were cancelled. */
  readonly generations: string[] = [];
  readonly cancelled: string[] = [];
  readonly #options: WorkerServerOptions;
  readonly #server: Bun.Server<undefined>;
  readonly #registration: ReturnType<typeof makeRegisterRequest>;
  #released = Promise.withResolvers<void>();
  #heartbeat: Timer | undefined;
  #sequence = 0;

  private constructor(options: WorkerServerOptions) {
    this.#options = options;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
    this.#registration = makeRegisterRequest({
      url: this.#server.url.origin,
      devices: [{ device_id: "cpu", kind: "cpu", memory_bytes: 2 ** 33 }],
      placements: [makePlacement({ checkpoint: options.checkpoint })],
    });
  }

  /** Registers and goes on reporting. */
  static async start(options: WorkerServerOptions): Promise<WorkerServer> {
    const worker = new WorkerServer(options);
    await worker.#report(gatewayPaths.register, worker.#registration);
    worker.#heartbeat = setInterval(() => {
      const { placements } = worker.#registration;
      const report = makeHeartbeat(worker.#registration, worker.#sequence++, { placements });
      // A gateway that is being stopped under the worker is part of some tests.
      worker.#report(gatewayPaths.heartbeat, report).catch(() => undefined);
    }, 500);
    return worker;
  }

  /** Lets running and later generations come to their end, until `hold`. */
  release(): void {
    this.#released.resolve();
  }

  hold(): void {
    this.#released = Promise.withResolvers<void>();
  }

  async stop(): Promise<void> {
    clearInterval(this.#heartbeat);
    this.release();
    await this.#server.stop(true);
  }

  async #report(path: string, body: unknown): Promise<void> {
    const response = await fetch(`${this.#options.gateway_url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.#options.cluster_token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const id = pathname.split("/").at(-1) ?? "";
    switch (`${request.method} ${pathname.replace(`/${id}`, "")}`) {
      case `DELETE ${workerPaths.instances}`:
        return Response.json({ instance_id: id, state: "gone" });
      case `DELETE ${workerPaths.generations}`:
        this.cancelled.push(id);
        return Response.json({ generation_id: id, cancelled: true });
    }
    const body = await request.json();
    if (pathname === workerPaths.instances) return events(loaded());
    this.generations.push(body.generation_id);
    return events(generated(this.#released.promise));
  }
}

function* loaded() {
  const timings = {
    process_start_ms: 1,
    disk_read_ms: 2,
    disk_read_bytes: 3,
    model_build_ms: 4,
    total_ms: 5,
  };
  yield { type: "progress", bytes_done: 1, bytes_total: 2, eta_ms: null };
  yield { type: "ready", timings };
}

async function* generated(released: Promise<void>) {
  yield { type: "started", prompt_tokens: 3 };
  yield { type: "tokens", choice: 0, first_index: 0, tokens: [{ token: 1, text: "Hello" }] };
  await released;
  yield { type: "tokens", choice: 0, first_index: 1, tokens: [{ token: 2, text: " world" }] };
  const timings = { queue_ms: 0, prefill_ms: 1, decode_ms: 2 };
  yield { type: "done", finish_reason: "stop", text: "", prompt_tokens: 3, completion_tokens: 2, timings };
}

function events(source: Iterable<unknown> | AsyncIterable<unknown>): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      for await (const event of source) {
        try {
          controller.enqueue(encoder.encode(encodeSseFrame({ data: JSON.stringify(event) })));
        } catch {
          // The gateway closed the connection, as it does when a client has left.
          return;
        }
      }
      controller.close();
    },
  });
  return new Response(body, { headers: sseHeaders });
}
