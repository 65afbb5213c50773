/** LoRA adapters over HTTP: added to a model that they fit, listed, named by requests, removed. */
import { describe, expect, test } from "bun:test";
import { adapterList, adapterObject } from "../../schema/api/adapters.ts";
import type { DeployRequest } from "../../schema/api/admin.ts";
import { modelList, modelObject } from "../../schema/api/models.ts";
import type { AdapterManifest } from "../../schema/checkpoint/manifest.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { adapterTensor, makeAdapterManifest, makeManifest, makePlacement } from "../support/cluster-facts.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";

const add = (scene: GatewayScene, model: string, name: string, fields: object = {}) =>
  scene.post("/admin/v1/adapters", { model, name, manifest: makeAdapterManifest(), ...fields });
const remove = (scene: GatewayScene, id: string) =>
  scene.gateway.app.request(`/admin/v1/adapters/${encodeURIComponent(id)}`, { method: "DELETE" });

/** A model with an adapter on a worker that has both on disk. */
async function withAdapter(manifest: AdapterManifest = makeAdapterManifest()) {
  const scene = new GatewayScene();
  const model = await scene.deploy();
  const added = await add(scene, model.id, "legal", { manifest });
  expect(added.status).toBe(201);
  const placements = [model.manifest, manifest].map(({ digest, weights }) =>
    makePlacement({ checkpoint: digest, bytes_present: weights.bytes }),
  );
  await scene.register([model], { placements });
  return { scene, model, manifest };
}

describe("adding", () => {
  test("answers 201 with the adapter, which is listed with its model and alone", async () => {
    const scene = new GatewayScene();
    const [model, other] = [await scene.deploy({ id: "org/base:1" }), await scene.deploy()];
    const manifest = makeAdapterManifest();
    const added = adapterObject.parse(await (await add(scene, model.id, "legal", { manifest })).json());
    expect(added).toMatchObject({
      ...{ id: "org/base:1:legal", model: "org/base:1", name: "legal", checkpoint: manifest.digest },
      ...{ rank: 4, weights_bytes: 4_096 },
    });
    await add(scene, other.id, "legal");
    const list = async (query: string) =>
      adapterList.parse(await (await scene.get(`/admin/v1/adapters${query}`)).json()).data;
    expect(await list("?model=org/base:1")).toEqual([added]);
    expect((await list("")).map(({ id }) => id).sort()).toEqual([`${other.id}:legal`, added.id].sort());
  });

  test("refuses a name that is taken, unless it replaces", async () => {
    const { scene, model } = await withAdapter();
    expect(await readError(await add(scene, model.id, "legal"))).toMatchObject({
      status: 409,
      code: "adapter_exists",
    });
    expect((await add(scene, model.id, "legal", { replace: true })).status).toBe(201);
  });

  test("refuses an unknown model, names that cannot be, and a manifest that is not of its digest", async () => {
    const scene = new GatewayScene();
    const { id } = await scene.deploy();
    expect(await readError(await add(scene, "nobody", "legal"))).toMatchObject({ code: "model_not_found" });
    for (const name of ["a:b", "a/b", "", "x".repeat(65)]) {
      expect(await readError(await add(scene, id, name))).toMatchObject({ status: 400, param: "name" });
    }
    const manifest = { ...makeAdapterManifest(), digest: "0".repeat(64) };
    expect(await readError(await add(scene, id, "legal", { manifest }))).toMatchObject({
      status: 422,
      code: "checkpoint_invalid",
    });
    const ofModel = await add(scene, id, "legal", { manifest: makeManifest() });
    expect(await readError(ofModel)).toMatchObject({ status: 400, param: "manifest.adapter" });
  });

  const b = adapterTensor("blk.0.attn_q.weight.lora_b", [4, 16], 1);
  test.each([
    ["architecture", { architecture: "qwen2" }, /for qwen2 models.*is a llama model/],
    [
      "tensor",
      { tensors: [adapterTensor("blk.7.attn_q.weight.lora_a", [16, 4], 0)] },
      /'blk\.7\.attn_q\.weight', which the model .* does not have/,
    ],
    [
      "input width",
      { tensors: [adapterTensor("blk.0.attn_q.weight.lora_a", [32, 4], 0), b] },
      /'blk\.0\.attn_q\.weight\.lora_a' has 32 elements.*has 16/,
    ],
    [
      "output width",
      { tensors: [adapterTensor("blk.0.attn_q.weight.lora_b", [4, 64], 0)] },
      /'blk\.0\.attn_q\.weight\.lora_b' has 64 elements.*has 16/,
    ],
    [
      "number of experts",
      { tensors: [adapterTensor("blk.0.attn_q.weight.lora_a", [16, 4, 8], 0)] },
      /'blk\.0\.attn_q\.weight\.lora_a' is for 8 experts.*has 1/,
    ],
    [
      "width of embeddings",
      { tensors: [adapterTensor("token_embd.weight.lora_b", [4, 17], 0)] },
      /'token_embd\.weight\.lora_b' has 17 elements.*has 16/,
    ],
  ])("refuses an adapter of another %s by name", async (_, fields, message) => {
    const scene = new GatewayScene();
    const { id } = await scene.deploy();
    const refused = await readError(await add(scene, id, "legal", { manifest: makeAdapterManifest(fields) }));
    expect(refused).toMatchObject({ status: 422, code: "adapter_mismatch" });
    expect(refused.message).toMatch(message);
  });

  test("takes factors of embeddings the other way round, and tensors that the engine passes by", async () => {
    const scene = new GatewayScene();
    const { id } = await scene.deploy();
    const tensors = [
      adapterTensor("token_embd.weight.lora_a", [4, 64], 0),
      adapterTensor("token_embd.weight.lora_b", [4, 16], 1),
      adapterTensor("blk.0.attn_norm.weight", [16], 2),
    ];
    const manifest = makeAdapterManifest({ tensors });
    expect((await add(scene, id, "legal", { manifest })).status).toBe(201);
  });

  test("refuses models that take none: deterministic ones, and those that make vectors", async () => {
    const scene = new GatewayScene();
    const exact = await scene.deploy({ settings: { slots: 1, deterministic: true } });
    expect(await readError(await add(scene, exact.id, "legal"))).toMatchObject({ code: "state_conflict" });
    const facts = makeManifest();
    const manifest = { ...facts, model: { ...facts.model, pooling: "mean" as const } };
    const encoder = await scene.deploy({ manifest });
    expect(await readError(await add(scene, encoder.id, "legal"))).toMatchObject({
      code: "task_unsupported",
    });
  });
});

describe("requests", () => {
  test("that name an adapter go to its model's instance with its checkpoint, and are answered under their name", async () => {
    const { scene, model, manifest } = await withAdapter();
    const response = await scene.chat(`${model.id}:legal`);
    expect(await response.json()).toMatchObject({ model: `${model.id}:legal` });
    await (await scene.chat(model.id)).text();
    const requests = scene.workers.generations.map(({ request }) => request);
    expect(requests.map(({ adapter }) => adapter)).toEqual([manifest.digest, undefined]);
    expect(new Set(requests.map(({ instance_id }) => instance_id)).size).toBe(1);
    expect(scene.workers.loads).toHaveLength(1);
  });

  test("book memory for the adapters with the instance that is started for them", async () => {
    const { scene, model } = await withAdapter(makeAdapterManifest({ weights_bytes: 8_192 }));
    await (await scene.chat(model.id)).text();
    const [instance] = (await scene.store.snapshot()).instances;
    const settings = { context_tokens: 128, slots: 4, adapter_bytes: 8_192 };
    const needed = instanceMemoryBytes(model.manifest.model, model.manifest.weights.bytes, settings);
    expect(instance).toMatchObject({ memory_bytes: needed, adapter_bytes: 8_192 });
    expect(scene.workers.loads[0]).toMatchObject({ adapter_bytes: 8_192 });
  });

  test("for an unknown adapter are 404 and told which there are", async () => {
    const { scene, model } = await withAdapter();
    const unknown = await readError(await scene.chat(`${model.id}:medical`));
    expect(unknown).toMatchObject({ status: 404, code: "adapter_not_found", param: "model" });
    expect(unknown.message).toContain("legal");
    const none = await scene.deploy();
    const empty = await readError(await scene.chat(`${none.id}:medical`));
    expect(empty).toMatchObject({ code: "adapter_not_found", message: expect.stringContaining("none") });
    expect(await readError(await scene.chat("nobody:medical"))).toMatchObject({ code: "model_not_found" });
  });

  test("for an adapter that no worker has are refused when its report is due", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    await add(scene, model.id, "legal");
    await scene.register([model]);
    const refused = await readError(await scene.chat(`${model.id}:legal`));
    expect(refused).toMatchObject({ status: 503, code: "checkpoint_unavailable" });
    expect(refused.message).toContain("adapter");
    expect((await scene.chat(model.id)).status).toBe(200);
  });

  test("go to a worker that has the adapter, past an instance that is ready elsewhere", async () => {
    const { scene, model, worker } = await warmWithoutAdapter();
    const manifest = makeAdapterManifest();
    await add(scene, model.id, "legal", { manifest });
    const placements = [model.manifest, manifest].map(({ digest, weights }) =>
      makePlacement({ checkpoint: digest, bytes_present: weights.bytes }),
    );
    const second = await scene.register([model], { placements, url: "http://127.0.0.1:4001" });
    await (await scene.chat(`${model.id}:legal`)).text();
    await (await scene.chat(model.id)).text();
    const at = scene.workers.generations.map(({ worker_id }) => worker_id);
    expect(at.slice(0, 2)).toEqual([worker.worker_id, second.worker_id]);
  });
});

async function warmWithoutAdapter() {
  const scene = new GatewayScene();
  return { scene, ...(await scene.warm()) };
}

describe("the list of models", () => {
  test("names adapters behind their models, with their parents and states", async () => {
    const { scene, model } = await withAdapter();
    await (await scene.chat(model.id)).text();
    const { data } = modelList.parse(await (await scene.get("/v1/models")).json());
    expect(data.map(({ id, parent, status }) => ({ id, parent, status }))).toEqual([
      { id: model.id, parent: undefined, status: "loaded" },
      { id: `${model.id}:legal`, parent: model.id, status: "loaded" },
    ]);
    const one = modelObject.parse(await (await scene.get(`/v1/models/${model.id}:legal`)).json());
    expect(one).toMatchObject({ id: `${model.id}:legal`, parent: model.id, context_tokens: 128 });
  });
});

describe("removing", () => {
  test("takes the adapter away, and says which there are when there is no such one", async () => {
    const { scene, model } = await withAdapter();
    expect((await remove(scene, `${model.id}:legal`)).status).toBe(200);
    expect(await readError(await scene.chat(`${model.id}:legal`))).toMatchObject({
      code: "adapter_not_found",
    });
    expect(await readError(await remove(scene, `${model.id}:legal`))).toMatchObject({
      status: 404,
      code: "adapter_not_found",
    });
  });

  test("must come before the model becomes another one", async () => {
    const { scene, model } = await withAdapter();
    const other: Partial<DeployRequest> = { id: model.id, manifest: makeManifest(), replace: true };
    const request = { ...model, ...other };
    expect(await readError(await scene.post("/admin/v1/models", request))).toMatchObject({
      status: 409,
      code: "state_conflict",
    });
    await remove(scene, `${model.id}:legal`);
    expect((await scene.post("/admin/v1/models", request)).status).toBe(201);
  });
});
