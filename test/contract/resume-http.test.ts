/** Streams that break and go on: whichever gateway, worker or engine is lost, a client gets every token once. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { eventually } from "../support/eventually.ts";
import { collectSse } from "../support/sse-client.ts";
import { hear, nothingHeard, StreamScene, wholeText } from "../support/stream-scene.ts";

/** One cluster for all: what a test kills is not there any more for those after it. */
let scene: StreamScene;
beforeAll(async () => {
  scene = await StreamScene.start({ gateways: 6, workers: 5, token_ms: 6 });
}, 20_000);
afterAll(() => scene?.close());

const finished = () => scene.workers.reduce((sum, { engines }) => sum + engines.finished, 0);
const cancelled = () => scene.workers.reduce((sum, { engines }) => sum + engines.cancelled, 0);

/** Reads a stream of so many tokens, and does something after some of them. */
async function disturbed(tokens: number, at: number, act: (worker: number) => unknown): Promise<void> {
  const response = await scene.complete(0, tokens);
  const heard = nothingHeard();
  let count = 0;
  await hear(response, heard, () => {
    count += 1;
    if (count !== at) return;
    const worker_id = heard.id?.split(/[@:]/)[1];
    act(scene.workers.findIndex((worker) => worker.worker_id === worker_id));
  });
  expect(heard).toMatchObject({ text: wholeText(tokens), isDone: true, error: null });
}

describe("a client that comes back", () => {
  const resumable = { "x-sllm-resume": "30" };

  /** Breaks the connection after so many tokens, and leaves time for more of them. */
  async function cutAfter(response: Response, tokens: number) {
    const heard = nothingHeard();
    let count = 0;
    const reader = response.clone();
    const stop = new AbortController();
    const body = reader.body?.pipeThrough(new TransformStream(), { signal: stop.signal });
    await hear(new Response(body), heard, () => {
      count += 1;
      if (count === tokens) stop.abort();
    });
    await response.body?.cancel();
    return heard;
  }

  test("goes on after its last event, at the same gateway and at another one", async () => {
    const before = cancelled();
    for (const gateway of [0, 1]) {
      const heard = await cutAfter(await scene.complete(0, 60, resumable), 10);
      expect(heard.isDone).toBe(false);
      const again = await scene.complete(gateway, 60, { ...resumable, "last-event-id": heard.id ?? "" });
      expect(again.status).toBe(200);
      await hear(again, heard);
      expect(heard).toMatchObject({ text: wholeText(60), isDone: true, error: null });
    }
    expect(cancelled()).toBe(before);
  });

  test("hears a comment at once, although the next token may take its time", async () => {
    const heard = await hear(await scene.complete(0, 5, resumable), nothingHeard());
    const again = await scene.complete(1, 5, { ...resumable, "last-event-id": heard.id ?? "" });
    const [first] = await collectSse(again);
    expect(first?.kind).toBe("comment");
  });

  test("goes on at another gateway when its own is killed, with a row or without one", async () => {
    for (const [dead, headers] of [
      [5, resumable],
      [4, {}],
    ] as const) {
      const heard = nothingHeard();
      let count = 0;
      await hear(await scene.complete(dead, 80, headers), heard, () => {
        count += 1;
        if (count === 10) void scene.killGateway(dead);
      });
      expect(heard.isDone).toBe(false);
      const again = await scene.complete(1, 80, { ...headers, "last-event-id": heard.id ?? "" });
      await hear(again, heard);
      expect(heard).toMatchObject({ text: wholeText(80), isDone: true, error: null });
    }
  });

  test("goes on although its gateway and its worker are both gone, after what the store has of it", async () => {
    const heard = nothingHeard();
    let count = 0;
    await hear(await scene.complete(3, 100, resumable), heard, () => {
      count += 1;
      if (count === 10) void scene.killGateway(3);
    });
    const id = heard.id?.slice(0, 32) ?? "";
    await eventually(
      "the store has what was told",
      async () => ((await scene.store.getStored(id))?.events.length ?? 0) > 0,
    );
    const worker_id = heard.id?.split(/[@:]/)[1];
    await scene.workers.find((worker) => worker.worker_id === worker_id)?.kill();
    const kept = (await scene.store.getStored(id))?.events.at(-1);
    const known = (kept?.first_index ?? 0) + (kept?.tokens.length ?? 0);
    const last = Number(heard.id?.split(".").at(-1));
    await hear(await scene.complete(1, 100, { ...resumable, "last-event-id": heard.id ?? "" }), heard);
    if (last < known) expect(heard).toMatchObject({ text: wholeText(100), isDone: true, error: null });
    else expect(heard.error).toBe("generation_lost");
  });

  test("gets only the end when it has everything but that", async () => {
    const heard = await hear(await scene.complete(0, 5, resumable), nothingHeard());
    const [first, rest = ""] = heard.id?.split(".") ?? [];
    expect(Number(rest)).toBe(5);
    for (const [after, missing] of [
      [5, ""],
      [4, ""],
      [2, " t3 t4"],
    ] as const) {
      const again = await scene.complete(0, 5, { ...resumable, "last-event-id": `${first}.${after}` });
      expect(await hear(again, nothingHeard())).toMatchObject({ text: missing, isDone: true });
    }
  });

  test("that never does lets go of the slot after its time, and at once without a wish", async () => {
    for (const headers of [{ "x-sllm-resume": "1" }, {}]) {
      const before = cancelled();
      await cutAfter(await scene.complete(0, 4_000, headers), 3);
      await eventually("it is cancelled", () => cancelled() === before + 1);
    }
  });
});

describe("an idempotency key", () => {
  test("stands for one generation: every request with it gets the same answer, from any gateway", async () => {
    const key = { "idempotency-key": "k-1" };
    const before = finished();
    const responses = await Promise.all([0, 1, 0, 1].map((gateway) => scene.complete(gateway, 30, key)));
    const answers = await Promise.all(responses.map((response) => hear(response, nothingHeard())));
    for (const heard of answers)
      expect(heard).toMatchObject({ text: wholeText(30), isDone: true, error: null });
    expect(new Set(answers.map(({ id }) => id?.slice(0, 32))).size).toBe(1);
    expect(finished()).toBe(before + 1);
    await eventually("it is on record", async () => {
      const id = answers[0]?.id?.slice(0, 32) ?? "";
      return (await scene.store.getGeneration(id))?.state === "finished";
    });
    const later = await scene.complete(1, 30, key);
    expect(await hear(later, nothingHeard())).toMatchObject({ text: wholeText(30), isDone: true });
    expect(finished()).toBe(before + 1);
    const other = await scene.complete(0, 31, key);
    expect(other.status).toBe(409);
    expect((await other.json()).error).toMatchObject({
      code: "idempotency_mismatch",
      param: "Idempotency-Key",
    });
  });

  test("that is too long is refused by name, and so are several answers that could be read again", async () => {
    const id = `${"0".repeat(32)}@w-0000000000000001:0.3`;
    for (const headers of [{ "idempotency-key": "k" }, { "last-event-id": id }, { "x-sllm-resume": "5" }]) {
      const body = { model: scene.model, prompt: "Hi", n: 2, stream: true };
      const refused = await scene.post(0, "/v1/completions", body, headers);
      expect(refused.status).toBe(400);
      expect((await refused.json()).error).toMatchObject({ code: "unsupported_parameter", param: "n" });
    }
    const strange = await scene.complete(0, 3, { "last-event-id": "7" });
    expect((await strange.json()).error).toMatchObject({ code: "invalid_request", param: "Last-Event-ID" });
    const response = await scene.complete(0, 3, { "idempotency-key": "k".repeat(256) });
    expect(response.status).toBe(400);
    expect((await response.json()).error.param).toBe("Idempotency-Key");
  });
});

describe("a generation by its id", () => {
  test("runs in the background, is read from any token, looked at, and told again after its end", async () => {
    const body = { model: scene.model, prompt: "Hi", max_tokens: 40, background: true };
    const accepted = await scene.post(0, "/v1/completions", body);
    expect(accepted.status).toBe(202);
    const { id } = await accepted.json();
    const stream = (gateway: number, after: number) =>
      fetch(`${scene.urlOf(gateway)}/v1/generations/${id}/stream?starting_after=${after}`);
    expect(await hear(await stream(1, -1), nothingHeard())).toMatchObject({
      text: wholeText(40),
      isDone: true,
    });
    await eventually("it has ended", async () => (await scene.store.getGeneration(id))?.state === "finished");
    const view = await (await fetch(`${scene.urlOf(1)}/v1/generations/${id}`)).json();
    expect(view).toMatchObject({ id, object: "generation", model: scene.model, state: "finished" });
    const rest = await hear(await stream(1, 9), nothingHeard());
    expect(rest.text).toBe(wholeText(40).slice(wholeText(10).length));
    const beyond = await stream(1, 41);
    expect(beyond.status).toBe(400);
    expect((await beyond.json()).error.param).toBe("starting_after");
    expect((await stream(1, -2)).status).toBe(400);
  });

  test("in the background goes on when its gateway is gone, at the next one", async () => {
    const body = { model: scene.model, prompt: "Hi", max_tokens: 200, background: true };
    const { id } = await (await scene.post(2, "/v1/completions", body)).json();
    await eventually("it runs", async () => (await scene.store.getGeneration(id))?.worker_id != null);
    await scene.killGateway(2);
    await eventually("it ends well", async () => (await scene.store.getGeneration(id))?.state === "finished");
    const answer = await fetch(`${scene.urlOf(1)}/v1/generations/${id}/stream`);
    expect(await hear(answer, nothingHeard())).toMatchObject({ text: wholeText(200), isDone: true });
  }, 20_000);

  test("is on record with its owner, and with how it is queued wherever it has to wait", async () => {
    const wishes = { "x-sllm-resume": "5", "x-sllm-priority": "low", "x-sllm-deadline-ms": "60000" };
    const { id } = await hear(await scene.complete(0, 3, wishes), nothingHeard());
    const generation_id = id?.slice(0, 32) ?? "";
    const stored = await scene.store.getStored(generation_id);
    expect(stored?.record.settings.origin).toMatchObject({ priority: "low", deadline_ms: 60_000 });
    const view = await (await fetch(`${scene.urlOf(1)}/admin/v1/generations/${generation_id}`)).json();
    expect(view.owner).toBe(scene.gateways[0]?.gateway.gateway_id ?? "");
  });

  test("is cancelled from any gateway, once; an unknown one is not found", async () => {
    const heard = nothingHeard();
    const reading = hear(await scene.complete(0, 4_000, { "x-sllm-resume": "60" }), heard);
    const id = await eventually("it runs", () => heard.id?.slice(0, 32));
    const cancel = () => scene.post(1, `/v1/generations/${id}/cancel`, {});
    expect(await (await cancel()).json()).toEqual({ id, cancelled: true });
    expect((await reading).error).toBe("cancelled");
    expect(await (await cancel()).json()).toEqual({ id, cancelled: false });
    expect((await scene.store.getGeneration(id))?.state).toBe("cancelled");
    expect((await scene.post(1, `/v1/generations/${"0".repeat(32)}/cancel`, {})).status).toBe(404);
  });
});

describe("a plain stream goes on elsewhere", () => {
  test("when its engine is killed, and nothing is missing or told twice", async () => {
    await disturbed(60, 20, (worker) => scene.workers[worker]?.engines.killAll());
  });

  test("when its worker is killed", async () => {
    await disturbed(60, 20, (worker) => void scene.workers[worker]?.kill());
  });

  test("when its host is cut off without a word, within the time of a silence", async () => {
    const began_ms = performance.now();
    await disturbed(60, 20, (worker) => scene.silenced.add(scene.workers[worker]?.url ?? ""));
    expect(scene.silenced.size).toBe(1);
    scene.silenced.clear();
    const took_ms = performance.now() - began_ms;
    expect(took_ms).toBeGreaterThan(limits.stream_beat_ms);
    expect(took_ms).toBeLessThan(limits.stream_silence_ms + limits.attach_ms + 2_000);
  }, 20_000);

  test("also while the database is away", async () => {
    await disturbed(60, 20, (worker) => {
      scene.store.isAway = true;
      void scene.workers[worker]?.kill();
    });
    scene.store.isAway = false;
  });
});
