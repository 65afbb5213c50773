/** The life of generations against scripted workers: one load for many, retries before the first token. */
import { describe, expect, test } from "bun:test";
import { errorBody, SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { done, gate, say, someLoadTimings, unreachable } from "../../test/support/scripted-worker.ts";

async function codeOf(response: Response): Promise<string> {
  return errorBody.parse(await response.json()).error.code;
}

function times<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

describe("a cold model", () => {
  test("is loaded once for 50 concurrent requests, and all are answered by that instance", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const loaded = gate();
    scene.workers.onLoad = async function* () {
      await loaded.passed;
      yield { type: "ready", timings: someLoadTimings };
    };
    const answers = times(50, (i) => scene.chat(model.id, { stream: i % 2 === 0 }));
    await eventually("the load begins", () => scene.workers.loads.length === 1);
    loaded.open();
    for (const answer of await Promise.all(answers)) {
      expect(answer.status).toBe(200);
      expect(await answer.text()).toContain("world");
    }
    expect(scene.workers.loads).toHaveLength(1);
    expect((await scene.store.snapshot()).instances).toHaveLength(1);
    expect(new Set(scene.workers.generations.map((g) => g.request.instance_id)).size).toBe(1);
    expect(scene.store.calls.get("createInstance")).toBe(1);
  });

  test("is loaded once although two gateways start it at the same moment", async () => {
    const first = new GatewayScene();
    const second = new GatewayScene({ store: first.store, workers: first.workers });
    const { model } = await first.ready();
    await second.get("/v1/models");
    const loaded = gate();
    first.workers.onLoad = async function* () {
      await loaded.passed;
      yield { type: "ready", timings: someLoadTimings };
    };
    const answers = times(20, (i) => (i % 2 === 0 ? first : second).chat(model.id));
    await eventually("both follow the load", () => first.workers.loads.length === 2);
    loaded.open();
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
    expect(new Set(first.workers.loads.map((l) => l.instance_id)).size).toBe(1);
    expect((await first.store.snapshot()).instances).toHaveLength(1);
  });

  test("whose load fails tells every waiting request why, and is not started again at once", async () => {
    const clock = new ManualClock();
    const scene = new GatewayScene({ clock });
    const { model } = await scene.ready();
    scene.workers.onLoad = () => [
      { type: "failed", error: { code: "engine_failed", message: "the engine said: no such layer" } },
    ];
    const answers = await Promise.all(times(5, () => scene.chat(model.id)));
    for (const answer of answers) {
      const { error } = errorBody.parse(await answer.json());
      expect(error.code).toBe("model_load_failed");
      expect(error.message).toContain("no such layer");
    }
    expect(scene.workers.loads).toHaveLength(1);
    const [event] = await scene.store.listEvents({ entity: "instance", limit: 1 });
    expect(event).toMatchObject({ to_state: "failed", reason: "engine_failed" });

    await clock.advance(400);
    const refused = await scene.chat(model.id);
    expect(refused.headers.get("retry-after-ms")).toBe("600");
    expect(await codeOf(refused)).toBe("model_load_failed");
    expect(scene.workers.loads).toHaveLength(1);

    await clock.advance(600);
    scene.workers.onLoad = () => [{ type: "ready", timings: someLoadTimings }];
    expect((await scene.chat(model.id)).status).toBe(200);
    expect(scene.workers.loads).toHaveLength(2);
  });

  test("whose engine is killed while it loads is started again, and no request hears of it", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    scene.workers.onLoad = () =>
      scene.workers.loads.length === 1
        ? [{ type: "failed", error: { code: "engine_killed", message: "signal SIGKILL" } }]
        : [{ type: "ready", timings: someLoadTimings }];
    const answers = await Promise.all(times(5, () => scene.chat(model.id)));
    for (const answer of answers) expect(answer.status).toBe(200);
    expect(scene.workers.loads).toHaveLength(2);
  });

  test("with a damaged checkpoint is refused with that code", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const error = { code: "checkpoint_invalid", message: "chunk 3 has another digest" } as const;
    scene.workers.onLoad = () => [{ type: "failed", error }];
    const response = await scene.chat(model.id);
    expect(response.status).toBe(422);
    expect(await codeOf(response)).toBe("checkpoint_invalid");
    const [status] = (await (await scene.get("/v1/models")).json()).data;
    expect(status.status).toBe("failed");
  });

  test("goes on loading when the client that asked leaves", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const loaded = gate();
    scene.workers.onLoad = async function* () {
      await loaded.passed;
      yield { type: "ready", timings: someLoadTimings };
    };
    const client = new AbortController();
    const answer = scene.chat(model.id, {}, { signal: client.signal });
    await eventually("the load begins", () => scene.workers.loads.length === 1);
    client.abort();
    expect((await answer).status).toBe(499);
    loaded.open();
    await eventually(
      "the instance is ready",
      async () => (await scene.store.snapshot()).instances[0]?.ready_at,
    );
    expect(scene.workers.generations).toHaveLength(0);
    expect((await scene.chat(model.id)).headers.get("x-sllm-cold")).toBe("hit");
  });
});

test("a graceful stop leaves no request that waits for a load behind", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.ready();
  const loaded = gate();
  scene.workers.onLoad = async function* () {
    await loaded.passed;
    yield { type: "ready", timings: someLoadTimings };
  };
  const answer = scene.chat(model.id);
  await eventually("the load begins", () => scene.workers.loads.length === 1);
  await scene.gateway.stop();
  expect((await scene.get("/readyz")).status).toBe(503);
  loaded.open();
  expect((await answer).status).toBe(200);
});

describe("before the first token", () => {
  test("a worker that cannot be reached is replaced by another, with a higher epoch", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    const workers = [await scene.register([model]), await scene.register([model])];
    scene.workers.onGenerate = (request) => (request.epoch === 1 ? unreachable() : say(["ok"]));
    const response = await scene.chat(model.id);
    expect(response.status).toBe(200);
    const [first, second] = scene.workers.generations;
    expect(second?.request.generation_id).toBe(first?.request.generation_id ?? "");
    expect(second?.request.epoch).toBe(2);
    expect(workers.map((w) => w.worker_id).toSorted()).toEqual(
      [first?.worker_id ?? "", second?.worker_id ?? ""].toSorted(),
    );
  });

  test("the only worker is tried again, for as long as it may take to come back", async () => {
    const clock = new ManualClock();
    const scene = new GatewayScene({ clock });
    const { model } = await scene.warm();
    scene.workers.onGenerate = (request) => (request.epoch < 4 ? unreachable() : say(["ok"]));
    const answer = scene.chat(model.id);
    await clock.advance(limits.worker_lease_ms);
    expect((await answer).status).toBe(200);
    expect(scene.workers.generations.map((g) => g.request.epoch)).toEqual([1, 1, 2, 3, 4]);
  });

  test.each([
    ["worker_unavailable", limits.failover_attempts],
    ["engine_failed", limits.placement_attempts],
  ] as const)("attempts that end with %s are bounded", async (code, most) => {
    const clock = new ManualClock();
    const scene = new GatewayScene({ clock });
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => {
      throw new SllmError(code, "It went wrong.");
    };
    const answer = scene.chat(model.id);
    await clock.advance(most * limits.failover_pause_ms);
    expect(await codeOf(await answer)).toBe(code);
    expect(scene.workers.generations).toHaveLength(1 + most);
  });

  test("an instance that its worker does not know is dead for all, and a new one is started", async () => {
    const scene = new GatewayScene();
    const { model, instance_id } = await scene.warm();
    scene.workers.onGenerate = (request) => {
      if (request.instance_id === instance_id) throw new SllmError("not_found", "no such instance");
      return say(["ok"]);
    };
    const response = await scene.chat(model.id);
    expect(response.headers.get("x-sllm-cold")).toBe("cold");
    expect(scene.workers.loads).toHaveLength(2);
    const [event] = await scene.store.listEvents({ entity: "instance", entity_id: instance_id, limit: 1 });
    expect(event).toMatchObject({ from_state: "ready", to_state: "failed" });
  });

  test("an engine that ends takes nobody with it", async () => {
    const scene = new GatewayScene();
    const { model, instance_id } = await scene.warm();
    const error = { code: "engine_failed", message: "signal 11" } as const;
    scene.workers.onGenerate = (request) =>
      request.instance_id === instance_id
        ? [
            { type: "started", prompt_tokens: 5 },
            { type: "error", error },
          ]
        : say(["ok"]);
    const answers = await Promise.all(times(8, () => scene.chat(model.id)));
    expect(answers.map((a) => a.status)).toEqual(times(8, () => 200));
    expect(scene.workers.loads).toHaveLength(2);
  });
});

test("a worker whose lease ends takes a request without tokens to another worker", async () => {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock });
  const { model, worker } = await scene.warm();
  const other = await scene.register([model]);
  const stuck = gate();
  scene.workers.onGenerate = async function* (request) {
    if (request.epoch === 1) await stuck.passed;
    yield { type: "started", prompt_tokens: 5 };
    yield done(0);
  };
  await scene.gateway.start();
  await scene.heartbeat(worker);
  const answer = scene.chat(model.id);
  await settle();
  for (let second = 0; second < 9; second++) {
    await clock.advance(1_000);
    await scene.heartbeat(other);
  }
  const response = await answer;
  expect(response.status).toBe(200);
  expect(scene.workers.generations.map((g) => g.worker_id)).toEqual([
    worker.worker_id,
    worker.worker_id,
    other.worker_id,
  ]);
  await scene.gateway.stop();
});
