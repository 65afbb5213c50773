/** The admin and cluster APIs: deploy, list, delete; register, heartbeat; who may call. */
import { describe, expect, test } from "bun:test";
import {
  adminInstanceList,
  adminLoadList,
  adminWorkerList,
  deployedModel,
  deployedModelList,
  deployRequest,
} from "../../schema/api/admin.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { heartbeatResponse, registerResponse } from "../../schema/cluster/membership.ts";
import { limits } from "../../schema/limits.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import {
  busyEngine,
  cpuDevice,
  makeDeployRequest,
  makeHeartbeat,
  makeManifest,
  makeRegisterRequest,
} from "../support/cluster-facts.ts";
import { clusterHeaders, GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";

describe("deploying", () => {
  test("answers 201 with what was left out resolved", async () => {
    const scene = new GatewayScene({ config: { keep_alive_ms: 7_000 } });
    const facts = makeManifest();
    const manifest = { ...facts, model: { ...facts.model, context_tokens: 131_072 } };
    const response = await scene.post("/admin/v1/models", { id: "org/model:1", manifest });
    expect(response.status).toBe(201);
    expect(deployedModel.parse(await response.json())).toMatchObject({
      ...{ id: "org/model:1", state: "active", checkpoint: manifest.digest, architecture: "llama" },
      ...{ context_tokens: 4_096, slots: 4, keep_alive_ms: 7_000, weights_bytes: 4_096, instances: [] },
    });
  });

  test("takes no more context than the model has, and its own keep-alive", async () => {
    const scene = new GatewayScene();
    const request = makeDeployRequest({ settings: { slots: 2, context_tokens: 9_999, keep_alive_ms: 0 } });
    const body = deployedModel.parse(await (await scene.post("/admin/v1/models", request)).json());
    expect(body).toMatchObject({ context_tokens: 128, slots: 2, keep_alive_ms: 0 });
  });

  test("takes a KV cache between one context and one for each slot, and none where every slot has its own", async () => {
    const scene = new GatewayScene();
    const ask = (settings: object) => {
      const request = makeDeployRequest();
      return scene.post("/admin/v1/models", {
        ...request,
        settings: { slots: 2, context_tokens: 100, ...settings },
      });
    };
    const body = deployedModel.parse(await (await ask({ kv_tokens: 150 })).json());
    expect(body).toMatchObject({ kv_tokens: 150, deterministic: false });
    const own = deployedModel.parse(await (await ask({ deterministic: true })).json());
    expect(own).toMatchObject({ kv_tokens: null, deterministic: true });
    for (const refused of [{ kv_tokens: 99 }, { kv_tokens: 201 }, { kv_tokens: 150, deterministic: true }]) {
      const error = { status: 400, code: "invalid_request", param: "settings.kv_tokens" };
      expect(await readError(await ask(refused))).toMatchObject(error);
    }
  });

  test("refuses a name that is taken, unless it replaces", async () => {
    const scene = new GatewayScene();
    const { id } = await scene.deploy();
    const again = makeDeployRequest({ id });
    expect(await readError(await scene.post("/admin/v1/models", again))).toMatchObject({
      status: 409,
      code: "model_exists",
    });
    expect((await scene.post("/admin/v1/models", { ...again, replace: true })).status).toBe(201);
  });

  test("refuses a manifest that does not hold together, naming the field", async () => {
    const scene = new GatewayScene();
    const request = deployRequest.encode(makeDeployRequest());
    const broken = { ...request, manifest: { ...request.manifest, digest: "short" } };
    expect(await readError(await scene.post("/admin/v1/models", broken))).toMatchObject({
      status: 400,
      param: "manifest.digest",
    });
  });
});

describe("the lists", () => {
  test("show models with their instances, workers with their memory, instances with their load", async () => {
    const scene = new GatewayScene();
    const { model, worker, instance_id } = await scene.warm();
    const { worker_id } = worker;
    const models = deployedModelList.parse(await (await scene.get("/admin/v1/models")).json());
    expect(models.data).toMatchObject([
      { id: model.id, instances: [{ instance_id, worker_id, state: "ready" }] },
    ]);
    const one = deployedModel.parse(await (await scene.get(`/admin/v1/models/${model.id}`)).json());
    expect(one.id).toBe(model.id);

    await scene.heartbeat(worker, {
      instances: [{ instance_id, model_id: model.id, state: "ready", active: 2, queued: 1, error: null }],
    });
    const instances = adminInstanceList.parse(await (await scene.get("/admin/v1/instances")).json());
    expect(instances.data).toMatchObject([
      { instance_id, worker_id, state: "ready", slots: 4, active: 2, queued: 1 },
    ]);

    const workers = adminWorkerList.parse(await (await scene.get("/admin/v1/workers")).json());
    expect(workers.data).toMatchObject([
      { worker_id, state: "ready", devices: [{ device_id: "cpu" }], placements: [{ tier: "disk" }] },
    ]);
  });

  test("show what engines are at, as far as workers have said it", async () => {
    const scene = new GatewayScene();
    const { model, worker, instance_id } = await scene.warm();
    const shown = async () =>
      adminInstanceList.parse(await (await scene.get("/admin/v1/instances")).json()).data[0]?.activity;
    expect(await shown()).toBeNull();
    const report = {
      instance_id,
      model_id: model.id,
      state: "ready",
      active: 2,
      queued: 1,
      error: null,
    } as const;
    await scene.heartbeat(worker, { instances: [{ ...report, activity: busyEngine }] });
    expect(await shown()).toEqual(busyEngine);
  });

  test("do not hide what is unknown: 404 with the envelope", async () => {
    const scene = new GatewayScene();
    const remove = await scene.gateway.app.request("/admin/v1/models/org/none", { method: "DELETE" });
    expect(await readError(remove)).toMatchObject({ status: 404, code: "model_not_found" });
    expect(await readError(await scene.get("/admin/v1/models/none"))).toMatchObject({ status: 404 });
    expect(await readError(await scene.get(`/admin/v1/generations/${"0".repeat(32)}`))).toMatchObject({
      status: 404,
      code: "not_found",
    });
    expect(await readError(await scene.get("/admin/v1/generations/zero"))).toMatchObject({ status: 400 });
  });
});

describe("a worker", () => {
  test("registers, is told its interval, and is told to let go of what is not wanted", async () => {
    const scene = new GatewayScene();
    const worker = makeRegisterRequest();
    const registered = await scene.post("/cluster/v1/register", worker, clusterHeaders);
    expect(registerResponse.parse(await registered.json())).toEqual({ heartbeat_ms: limits.heartbeat_ms });
    const strange = {
      instance_id: "i-0123456789abcdef",
      model_id: "m",
      state: "ready",
      active: 0,
      queued: 0,
      error: null,
    };
    const beat = await scene.post(
      "/cluster/v1/heartbeat",
      { ...makeHeartbeat(worker, 0), instances: [strange] },
      clusterHeaders,
    );
    expect(heartbeatResponse.parse(await beat.json())).toEqual({
      known: true,
      release: [strange.instance_id],
      deployed: [],
    });
    const other = await scene.post(
      "/cluster/v1/heartbeat",
      makeHeartbeat(makeRegisterRequest(), 0),
      clusterHeaders,
    );
    expect(heartbeatResponse.parse(await other.json()).known).toBe(false);
  });

  test("of another protocol version is told so", async () => {
    const scene = new GatewayScene();
    const body = { ...makeRegisterRequest(), protocol_version: 99 };
    expect(await readError(await scene.post("/cluster/v1/register", body, clusterHeaders))).toMatchObject({
      status: 422,
      code: "protocol_mismatch",
    });
  });

  test("that reports a failed instance takes it out of service at once", async () => {
    const scene = new GatewayScene();
    const { model, worker, instance_id } = await scene.warm();
    const error = { code: "engine_failed", message: "signal 9" } as const;
    await scene.heartbeat(worker, {
      instances: [{ instance_id, model_id: model.id, state: "failed", active: 0, queued: 0, error }],
    });
    expect((await scene.chat(model.id)).headers.get("x-sllm-cold")).toBe("cold");
  });
});

describe("tokens", () => {
  test("of workers, operators and clients open their own doors only", async () => {
    const config = { api_keys: ["a-key-of-the-tests"], admin_token: "the-admin-token-of-the-tests" };
    const scene = new GatewayScene({ config });
    const status = async (path: string, token: string | null) =>
      (await scene.get(path, token === null ? {} : { authorization: `Bearer ${token}` })).status;
    expect(await status("/v1/models", null)).toBe(401);
    expect(await status("/v1/models", config.admin_token)).toBe(401);
    expect(await status("/v1/models", "a-key-of-the-tests")).toBe(200);
    expect(await status("/admin/v1/models", null)).toBe(401);
    expect(await status("/admin/v1/models", "a-key-of-the-tests")).toBe(401);
    expect(await status("/admin/v1/models", config.admin_token)).toBe(200);
    expect(await status("/livez", null)).toBe(200);
    const register = await scene.post("/cluster/v1/register", makeRegisterRequest(), {
      authorization: `Bearer ${config.admin_token}`,
    });
    expect(await readError(register)).toMatchObject({ status: 401, code: "invalid_api_key" });
    expect(register.headers.get("www-authenticate")).toBe("Bearer");
  });
});

describe("explaining loads", () => {
  const trace = (n: number): LoadTrace => ({
    instance_id: `i-${n.toString(16).padStart(16, "0")}`,
    model_id: "m",
    checkpoint: "c".repeat(64),
    started_at: new Date(n).toISOString(),
    outcome: "ready",
    error: null,
    total_ms: 5,
    source: "host",
    bytes: { weights: 1, direct: 0, cached: 0, buffered: 0, uploaded: 0 },
    read: null,
    stages: [],
    critical_path: [],
  });

  test("gathers the last of all workers, the newest first, and names who was silent", async () => {
    const scene = new GatewayScene();
    const [one, two, away] = [await scene.register([]), await scene.register([]), await scene.register([])];
    scene.workers.traces.set(one.worker_id, [trace(40), trace(10)]);
    scene.workers.traces.set(two.worker_id, [trace(30), trace(20)]);
    const { data, silent } = adminLoadList.parse(await (await scene.get("/admin/v1/loads?limit=3")).json());
    expect(data.map((load) => [load.worker_id, Date.parse(load.started_at)])).toEqual([
      [one.worker_id, 40],
      [two.worker_id, 30],
      [two.worker_id, 20],
    ]);
    expect(silent).toEqual([away.worker_id]);
  });

  test("refuses a query that makes no sense by the name of the field", async () => {
    const scene = new GatewayScene();
    expect(await readError(await scene.get("/admin/v1/loads?limit=0"))).toMatchObject({ param: "limit" });
    expect(await readError(await scene.get("/admin/v1/loads?instance_id=x"))).toMatchObject({
      param: "instance_id",
    });
  });
});

describe("links of workers", () => {
  test("a load goes to the worker whose disk is free, as soon as the other one reports its queue", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    const roomy = await scene.register([model], { devices: [cpuDevice(2 ** 41)] });
    const free = await scene.register([model]);
    const busy = { link: "disk", queued_bytes: 2 ** 33, queued_ms: 4_000, bandwidth_bytes_per_s: 2 ** 31 };
    await scene.heartbeat(roomy, { links: [busy] });
    await (await scene.chat(model.id)).text();
    const [instance] = (await scene.store.snapshot()).instances;
    expect(instance?.worker_id).toBe(free.worker_id);
    const { data } = adminWorkerList.parse(await (await scene.get("/admin/v1/workers")).json());
    expect(data.find((worker) => worker.worker_id === roomy.worker_id)?.links).toEqual([busy]);
  });

  test("without a queue the worker with more free memory is taken", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    await scene.register([model]);
    const roomy = await scene.register([model], { devices: [cpuDevice(2 ** 41)] });
    await (await scene.chat(model.id)).text();
    const [instance] = (await scene.store.snapshot()).instances;
    expect(instance?.worker_id).toBe(roomy.worker_id);
  });
});

test("a model that no device can hold is refused when it is deployed, and deployed while no worker is known", async () => {
  const scene = new GatewayScene();
  const { model: facts, weights } = makeManifest();
  const needed = instanceMemoryBytes(facts, weights.bytes, { context_tokens: 64, slots: 2 });
  const settings = { context_tokens: 64, slots: 2 };
  await scene.register([], { devices: [cpuDevice(needed - 1)] });
  const refused = await scene.post("/admin/v1/models", { id: "m", manifest: makeManifest(), settings });
  expect(refused.status).toBe(422);
  const error = await readError(refused);
  expect(error).toMatchObject({ code: "deployment_too_large", param: "settings" });
  expect(error.message).toContain(`needs ${needed} bytes`);
  expect(error.message).toContain(`gives models ${needed - 1}`);
  await scene.register([], { ...makeRegisterRequest({ devices: [cpuDevice(needed)] }) });
  const fits = await scene.post("/admin/v1/models", { id: "m", manifest: makeManifest(), settings });
  expect(fits.status).toBe(201);
});
