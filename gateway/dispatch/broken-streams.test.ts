/** Streams that break after their first token, against scripted workers: taken up again, gone on with, or ended for good. */
import { expect, test } from "bun:test";
import type { AttachEvent } from "../../schema/cluster/attach.ts";
import { SllmError } from "../../schema/error.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { done, tokens, unreachable } from "../../test/support/scripted-worker.ts";

test("after the first token a dead engine's generation goes on elsewhere, with all that it needs", async () => {
  const scene = new GatewayScene();
  const { model, instance_id } = await scene.warm();
  const prompt = [3, 1, 4];
  scene.workers.onGenerate = (request) =>
    request.instance_id === instance_id
      ? [
          { type: "started", prompt_tokens: 3, prompt },
          tokens(0, ["Hello"]),
          { type: "error", error: { code: "engine_failed", message: "signal 11" } },
        ]
      : [{ type: "started", prompt_tokens: 3, prompt }, tokens(1, [" again"]), done(2)];
  const text = await (await scene.chat(model.id, { stream: true })).text();
  expect(text).toContain("Hello");
  expect(text).toContain(" again");
  expect(text).toContain("[DONE]");
  const [, first, second] = scene.workers.generations;
  expect(second?.request).toMatchObject({
    generation_id: first?.request.generation_id,
    epoch: 2,
    resume: { prompt, output: [0] },
    history: {
      hops: [{ worker_id: first?.worker_id, epoch: 1, first_index: 0 }],
      told: [tokens(0, ["Hello"])],
    },
  });
  expect(second?.request.sampling.seed).toBe(first?.request.sampling.seed ?? "");
  const [event] = await scene.store.listEvents({ entity: "instance", entity_id: instance_id, limit: 1 });
  expect(event).toMatchObject({ from_state: "ready", to_state: "failed", reason: "engine_failed" });
});

/** What a worker tells a reader that attaches to the last generation begun, from its second token on. */
function attached(scene: GatewayScene, fields: { worker_id: string; epoch?: number }): AttachEvent[] {
  const { request, worker_id } = scene.workers.generations.at(-1) ?? {};
  if (request === undefined || worker_id === undefined) throw new Error("nothing was begun");
  const { generation_id, instance_id, prompt, sampling, stop, max_tokens, ignore_eos } = request;
  const settings = { prompt, sampling, stop, max_tokens, ignore_eos };
  const first = { worker_id, epoch: request.epoch, first_index: 0 };
  const { epoch = request.epoch } = fields;
  const hops = fields.worker_id === worker_id ? [first] : [first, { ...fields, epoch, first_index: 1 }];
  const run = { generation_id, epoch, instance_id, owner: null, settings, hops };
  const record = { ...run, prompt: [3, 1, 4], first_index: 0 };
  // One event too many, as a retry may bring.
  return [{ type: "record", record }, tokens(0, ["Hello"]), tokens(1, [" again"]), done(2)];
}

test("a connection that breaks is taken up again where the worker still has the generation", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.warm();
  scene.workers.onGenerate = function* () {
    yield { type: "started", prompt_tokens: 3, prompt: [3, 1, 4] };
    yield tokens(0, ["Hello"]);
    unreachable();
  };
  scene.workers.onAttach = (_, __, worker_id) => attached(scene, { worker_id });
  const answer = await (await scene.chat(model.id)).json();
  expect(answer.choices[0].message.content).toBe("Hello again");
  expect(scene.workers.generations).toHaveLength(2);
  expect(scene.workers.attaches).toMatchObject([{ query: { from: 1, epoch: 1 } }]);
});

test("a worker that fell silent and did not answer is not asked again: the stream goes on elsewhere at once", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.warm();
  const prompt = [3, 1, 4];
  const first = scene.workers.generations.length;
  scene.workers.onGenerate = function* () {
    yield { type: "started", prompt_tokens: 3, prompt };
    if (scene.workers.generations.length > first + 1) {
      yield tokens(1, [" again"]);
      yield done(2);
    } else {
      yield tokens(0, ["Hello"]);
      throw new SllmError("worker_unavailable", "It fell silent.", { is_silent: true });
    }
  };
  const answer = await (await scene.chat(model.id)).json();
  expect(answer.choices[0].message.content).toBe("Hello again");
  expect(scene.workers.attaches).toEqual([]);
  expect(scene.workers.generations.at(-1)?.request).toMatchObject({
    epoch: 2,
    resume: { prompt, output: [0] },
  });
});

test("a generation that was moved is read where it went, and the stream says so in a comment", async () => {
  const scene = new GatewayScene();
  const { model, worker } = await scene.warm();
  const other = await scene.register([model]);
  const to = { epoch: 2, worker_id: other.worker_id, url: other.url, instance_id: "i-00000000000000ff" };
  scene.workers.onGenerate = () => [
    { type: "started", prompt_tokens: 3, prompt: [3, 1, 4] },
    tokens(0, ["Hello"]),
    { type: "moved", to },
  ];
  scene.workers.onAttach = (_, __, worker_id) => attached(scene, { worker_id, epoch: 2 });
  const text = await (await scene.chat(model.id, { stream: true })).text();
  expect(text).toContain('{"state":"moved","why":"moved"}');
  expect(text).toContain(`@${worker.worker_id}:0.0`);
  expect(text).toContain(`@${other.worker_id}:0.1`);
  expect(text.match(/Hello/g)).toHaveLength(1);
  expect(text).toContain("[DONE]");
  expect(scene.workers.attaches).toMatchObject([
    { worker_id: other.worker_id, query: { from: 1, epoch: 2, owner: scene.gateway.gateway_id } },
  ]);
});

test("a worker that goes on without tokens that were told ends the stream with an error, not with another text", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.warm();
  scene.workers.onGenerate = function* () {
    yield { type: "started", prompt_tokens: 3, prompt: [3, 1, 4] };
    yield tokens(0, ["Hello"]);
    unreachable();
  };
  scene.workers.onAttach = (_, __, worker_id) =>
    attached(scene, { worker_id }).map((event) =>
      event.type === "record"
        ? { ...event, record: { ...event.record, hops: [{ worker_id, epoch: 7, first_index: 0 }] } }
        : event,
    );
  const text = await (await scene.chat(model.id, { stream: true })).text();
  expect(text).toContain("generation_lost");
  expect(text).not.toContain('"content":" again"');
  expect(text).not.toContain("[DONE]");
});

test("a plain stream that another gateway takes up after its tool call still ends as one with a call", async () => {
  const scene = new GatewayScene();
  const { model, worker, instance_id } = await scene.warm();
  const { worker_id } = worker;
  const generation_id = "ab".repeat(16);
  const { prompt, sampling, stop, max_tokens, ignore_eos } = scene.workers.generations.at(-1)?.request ?? {};
  if (prompt === undefined || sampling === undefined) throw new Error("nothing was begun");
  const shown = { model_id: model.id, tenant: "anyone", created_at_ms: 0, shape: "chat", model: model.id };
  const settings = {
    prompt,
    sampling,
    stop: stop ?? [],
    max_tokens: max_tokens ?? null,
    ignore_eos: ignore_eos === true,
  };
  const record: Extract<AttachEvent, { type: "record" }>["record"] = {
    ...{ generation_id, epoch: 1, owner: null, instance_id, prompt: [3, 1, 4], first_index: 0 },
    settings: { ...settings, origin: { ...shown, shape: "chat", include_usage: false } },
    hops: [{ worker_id, epoch: 1, first_index: 0 }],
    has_calls: true,
  };
  scene.workers.onAttach = () => [{ type: "record", record }, tokens(2, ["!"]), done(3)];
  const init = { "last-event-id": `${generation_id}@${worker_id}:0.1` };
  const body = { model: model.id, stream: true, messages: [{ role: "user", content: "Hi" }] };
  const text = await (await scene.post("/v1/chat/completions", body, init)).text();
  expect(text).toContain('"finish_reason":"tool_calls"');
  expect(text).toContain("[DONE]");
});
