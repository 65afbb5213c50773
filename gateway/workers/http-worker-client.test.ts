/** The client of the worker API against a scripted fetch: what it sends, what it makes of answers and failures. */
import { describe, expect, test } from "bun:test";
import type { GenerateRequest } from "../../schema/cluster/generate.ts";
import { protocolVersion, workerPaths } from "../../schema/cluster/protocol.ts";
import { SllmError, toErrorBody } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { done, tokens } from "../../test/support/scripted-worker.ts";
import { createHttpWorkerClient, type Fetch } from "./http-worker-client.ts";

const incarnation = "0123456789abcdef";
const worker = { worker_id: `w-${incarnation}`, url: "http://127.0.0.1:4000", incarnation };
const instance_id = "i-0123456789abcdef";

const request: GenerateRequest = {
  protocol_version: protocolVersion,
  generation_id: "0".repeat(32),
  epoch: 1,
  instance_id,
  prompt: { kind: "text", text: "Hi" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 4,
  ignore_eos: false,
};

const clientOf = (fetch: Fetch) => createHttpWorkerClient({ fetch, cluster_token: "the-token-of-the-tests" });
const answer = (response: Response) => clientOf(() => Promise.resolve(response));
const sse = (events: readonly unknown[]) => events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join("");
const never = new AbortController().signal;

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const event of events) all.push(event);
  return all;
}

async function failure(action: Promise<unknown>): Promise<SllmError> {
  const error = await action.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof SllmError)) throw new Error("an SllmError was due", { cause: error });
  return error;
}

describe("a stream", () => {
  test("is asked for with the cluster token and read to its last event, in whatever pieces it comes", async () => {
    const calls: { url: string; init: RequestInit }[] = [];
    const events = [{ type: "started", prompt_tokens: 1 }, tokens(0, ["é", " ü"]), done(2)];
    const bytes = new TextEncoder().encode(`: open\n\n${sse(events)}`);
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const client = clientOf((url, init) => {
      calls.push({ url, init });
      return Promise.resolve(new Response(body));
    });
    expect(await collect(client.generate(worker, request, never))).toEqual(events as never);
    expect(calls[0]?.url).toBe("http://127.0.0.1:4000/v1/generations");
    expect(new Headers(calls[0]?.init.headers).get("authorization")).toBe("Bearer the-token-of-the-tests");
    expect(new Headers(calls[0]?.init.headers).get("x-sllm-incarnation")).toBe(incarnation);
    expect(JSON.parse(String(calls[0]?.init.body))).toEqual(request);
  });

  test("that ends early, sends nonsense or an endless line is a failed connection", async () => {
    const cut = answer(new Response(sse([{ type: "started", prompt_tokens: 1 }])));
    const bodies = [
      "data: {\n\n",
      sse([{ type: "started" }]),
      `data: ${"x".repeat(2 * limits.stream_buffer_bytes)}`,
    ];
    for (const client of [cut, ...bodies.map((b) => answer(new Response(b)))]) {
      const error = await failure(collect(client.generate(worker, request, never)));
      expect(error.code).toBe("worker_unavailable");
    }
  });

  test("that cannot be opened is a failed connection, with the cause kept", async () => {
    const cause = new TypeError("connection refused");
    const error = await failure(
      collect(clientOf(() => Promise.reject(cause)).generate(worker, request, never)),
    );
    expect(error).toMatchObject({ code: "worker_unavailable", cause });
  });

  test.each([true, false])(
    "that falls silent fails, and says whether its worker answers: %s",
    async (lives) => {
      let asked = "";
      const client = clientOf((url, { signal }) => {
        if (!url.endsWith(workerPaths.livez)) return Promise.resolve(new Response(new ReadableStream()));
        asked = url;
        if (lives) return Promise.resolve(new Response("ok"));
        return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
      });
      const error = await failure(collect(client.generate(worker, request, never)));
      expect(error).toMatchObject({ code: "worker_unavailable", is_silent: !lives });
      expect(asked).toBe(`${worker.url}/livez`);
    },
  );

  test("that is refused throws the worker's own error", async () => {
    const refusal = new SllmError("context_length_exceeded", "too long", { param: "prompt" });
    const client = answer(Response.json(toErrorBody(refusal), { status: refusal.http_status }));
    expect(await failure(collect(client.generate(worker, request, never)))).toMatchObject({
      code: "context_length_exceeded",
      message: "too long",
      param: "prompt",
    });
  });

  test("refused by something that is not a worker, or for our token, is a failed connection", async () => {
    const token = Response.json(toErrorBody(new SllmError("invalid_api_key", "wrong")), { status: 401 });
    const strange = Response.json(
      { error: { message: "?", type: "?", param: null, code: "?" } },
      { status: 500 },
    );
    for (const response of [new Response("<html>", { status: 404 }), token, strange]) {
      const error = await failure(collect(answer(response).generate(worker, request, never)));
      expect(error.code).toBe("worker_unavailable");
    }
  });

  test("refused by another process of the worker is one whose worker is away, a newer owner is not", async () => {
    const refusal = (param?: string) =>
      answer(Response.json(toErrorBody(new SllmError("stale_epoch", "over", { param })), { status: 409 }));
    const other = await failure(collect(refusal("incarnation").generate(worker, request, never)));
    expect(other.code).toBe("worker_unavailable");
    const owner = await failure(collect(refusal().generate(worker, request, never)));
    expect(owner.code).toBe("stale_epoch");
  });

  test("ends without an error when its signal aborts, and closes the connection", async () => {
    let closed = false;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) =>
        controller.enqueue(new TextEncoder().encode(sse([{ type: "started", prompt_tokens: 1 }]))),
      cancel: () => {
        closed = true;
      },
    });
    const leave = new AbortController();
    const seen: string[] = [];
    for await (const event of answer(new Response(body)).generate(worker, request, leave.signal)) {
      seen.push(event.type);
      leave.abort();
    }
    expect(seen).toEqual(["started"]);
    expect(closed).toBe(true);
  });

  test("is read to its end after the last event, so that the connection serves the next request", async () => {
    let ends = 0;
    let isCancelled = false;
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (ends++ === 0) controller.enqueue(new TextEncoder().encode(sse([done(0)])));
          else controller.close();
        },
        cancel: () => {
          isCancelled = true;
        },
      },
      { highWaterMark: 0 },
    );
    for await (const event of answer(new Response(body)).generate(worker, request, never)) {
      expect(event.type).toBe("done");
    }
    await Bun.sleep(0);
    expect(ends).toBe(2);
    expect(isCancelled).toBe(false);
  });

  test("that says more after its last event loses the connection", async () => {
    const cancelled = Promise.withResolvers<void>();
    const body = new ReadableStream<Uint8Array>(
      {
        pull: (controller) => controller.enqueue(new TextEncoder().encode(sse([done(0)]))),
        cancel: () => cancelled.resolve(),
      },
      { highWaterMark: 0 },
    );
    expect(await collect(answer(new Response(body)).generate(worker, request, never))).toHaveLength(1);
    await cancelled.promise;
  });

  test("closes the connection when its reader stops", async () => {
    let closed = false;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) =>
        controller.enqueue(new TextEncoder().encode(sse([{ type: "started", prompt_tokens: 1 }]))),
      cancel: () => {
        closed = true;
      },
    });
    for await (const _ of answer(new Response(body)).generate(worker, request, never)) break;
    expect(closed).toBe(true);
  });
});

describe("a control call", () => {
  test("unloads: gone and unknown are the same, busy is an error", async () => {
    const gone = Response.json({ instance_id, state: "gone" });
    const refused = (code: "not_found" | "instance_busy") =>
      answer(Response.json(toErrorBody(new SllmError(code, code)), { status: 409 }));
    await answer(gone).unload(worker, instance_id, { if_idle: true });
    await refused("not_found").unload(worker, instance_id, { if_idle: true });
    const busy = await failure(refused("instance_busy").unload(worker, instance_id, { if_idle: true }));
    expect(busy.code).toBe("instance_busy");
  });

  test("parks: the answer is awaited, a refusal has the worker's code", async () => {
    const urls: string[] = [];
    const client = clientOf((url, init) => {
      urls.push(`${init.method} ${new URL(url).pathname}`);
      return Promise.resolve(Response.json({ instance_id, state: "parked" }));
    });
    await client.park(worker, instance_id);
    expect(urls).toEqual([`POST /v1/instances/${instance_id}/park`]);
    const busy = Response.json(toErrorBody(new SllmError("instance_busy", "busy")), { status: 409 });
    expect((await failure(answer(busy).park(worker, instance_id))).code).toBe("instance_busy");
  });

  test("says if_idle in the query", async () => {
    const urls: string[] = [];
    const client = clientOf((url) => {
      urls.push(url);
      return Promise.resolve(Response.json({ instance_id, state: "gone" }));
    });
    await client.unload(worker, instance_id, { if_idle: true });
    await client.unload(worker, instance_id, { if_idle: false });
    expect(urls.map((u) => new URL(u).search)).toEqual(["?if_idle=1", ""]);
  });

  test("cancels: true when the worker ran it, false when it does not know it", async () => {
    const { generation_id } = request;
    for (const cancelled of [true, false]) {
      const client = answer(Response.json({ generation_id, cancelled }));
      expect((await client.cancel(worker, generation_id)).cancelled).toBe(cancelled);
    }
    const strange = await failure(answer(Response.json({})).cancel(worker, generation_id));
    expect(strange.code).toBe("worker_unavailable");
  });
});
