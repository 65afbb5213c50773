/** Deployments: made, refused, replaced, deleted and purged. */
import { expect, test } from "bun:test";
import { SllmError } from "../../../schema/error.ts";
import { makeDeployRequest, makeManifest, resolvedSettings } from "../../support/cluster-facts.ts";
import { deploy, type Fixture, history, register, startInstance, wantedInstance } from "./fixture.ts";

export function modelContract(fixture: Fixture): void {
  test("a deployed model is found with its whole manifest", async () => {
    const { store } = fixture();
    const request = makeDeployRequest();
    const model = await store.deployModel(request, resolvedSettings);
    expect(model).toMatchObject({
      model_id: request.id,
      state: "active",
      checkpoint: request.manifest.digest,
      context_tokens: 128,
      slots: 4,
      keep_alive_ms: 60_000,
    });
    const found = await store.getModel(request.id);
    expect(found?.model).toEqual(model);
    expect(found?.checkpoint.manifest).toEqual(request.manifest);
    expect((await store.listModels()).map((row) => row.model.model_id)).toContain(request.id);
    expect(await history(store, "model", request.id)).toEqual(["null -> active (deployed)"]);
    expect(await history(store, "checkpoint", request.manifest.digest)).toEqual(["null -> known (deployed)"]);
  });

  test("how many instances it has is kept, changed by a replacement, and what is left out is its default", async () => {
    const { store } = fixture();
    const scaling = {
      min_instances: 1,
      max_instances: 3,
      target_concurrency: 2,
      queue_delay_ms: 0,
      preload: true,
    };
    const request = makeDeployRequest({ settings: { slots: 4, ...scaling } });
    expect(await store.deployModel(request, resolvedSettings)).toMatchObject(scaling);
    await store.deployModel({ ...request, settings: { slots: 4 }, replace: true }, resolvedSettings);
    expect((await store.getModel(request.id))?.model).toMatchObject({
      ...{ min_instances: 0, max_instances: null, target_concurrency: null },
      ...{ queue_delay_ms: 5_000, preload: false },
    });
  });

  test("an unknown model is null", async () => {
    expect(await fixture().store.getModel("nobody/deployed:this")).toBeNull();
  });

  test("any text that JSON can say survives in a manifest", async () => {
    const { store } = fixture();
    const manifest = makeManifest();
    const name = 'nul \0, "quotes", \u2028, lone \ud800, 日本語, 🦙';
    const request = makeDeployRequest({ manifest: { ...manifest, model: { ...manifest.model, name } } });
    await store.deployModel(request, resolvedSettings);
    expect((await store.getModel(request.id))?.checkpoint.manifest.model.name).toBe(name);
  });

  test("a second deployment under the same name is refused and leaves no trace", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const second = makeDeployRequest({ id: model.model_id });
    const refused = await store.deployModel(second, resolvedSettings).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(SllmError);
    expect(refused).toMatchObject({ code: "model_exists" });
    expect((await store.getModel(model.model_id))?.model).toEqual(model);
    expect(await history(store, "checkpoint", second.manifest.digest)).toEqual([]);
    expect(await history(store, "model", model.model_id)).toHaveLength(1);
  });

  test("two models may share a checkpoint, which becomes known once", async () => {
    const { store } = fixture();
    const first = makeDeployRequest();
    const second = makeDeployRequest({ manifest: first.manifest });
    await store.deployModel(first, resolvedSettings);
    await store.deployModel(second, resolvedSettings);
    expect((await store.getModel(second.id))?.model.checkpoint).toBe(first.manifest.digest);
    expect(await history(store, "checkpoint", first.manifest.digest)).toHaveLength(1);
  });

  test("replace takes a name over with new checkpoint and settings", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const request = makeDeployRequest({
      id: model.model_id,
      replace: true,
      settings: { slots: 9, kv_tokens: 100, deterministic: true },
    });
    const replaced = await store.deployModel(request, { context_tokens: 64, keep_alive_ms: 5 });
    expect(replaced).toMatchObject({
      checkpoint: request.manifest.digest,
      context_tokens: 64,
      slots: 9,
      kv_tokens: 100,
      deterministic: true,
      keep_alive_ms: 5,
    });
    expect(await history(store, "model", model.model_id)).toEqual([
      "null -> active (deployed)",
      "active -> active (replaced)",
    ]);
  });

  test("replace deploys a name that is free", async () => {
    const { store } = fixture();
    const request = makeDeployRequest({ replace: true });
    await store.deployModel(request, resolvedSettings);
    expect(await history(store, "model", request.id)).toEqual(["null -> active (deployed)"]);
  });

  test("replace revives a deleting model", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    await store.deleteModel(model.model_id);
    await store.deployModel(makeDeployRequest({ id: model.model_id, replace: true }), resolvedSettings);
    expect((await store.getModel(model.model_id))?.model.state).toBe("active");
    expect(await store.purgeModel(model.model_id)).toBe(false);
    expect((await history(store, "model", model.model_id)).at(-1)).toBe("deleting -> active (replaced)");
  });

  test("a deleting model keeps its name until it is purged", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    await store.deleteModel(model.model_id);
    await expect(
      store.deployModel(makeDeployRequest({ id: model.model_id }), resolvedSettings),
    ).rejects.toMatchObject({ code: "model_exists" });
    expect(await store.purgeModel(model.model_id)).toBe(true);
    await store.deployModel(makeDeployRequest({ id: model.model_id }), resolvedSettings);
  });

  test("deleting twice is said once in the audit, and an unknown model is not there to delete", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    expect(await store.deleteModel(model.model_id)).toBe(true);
    expect(await store.deleteModel(model.model_id)).toBe(true);
    expect(await store.deleteModel("nobody/deployed:this")).toBe(false);
    expect((await store.getModel(model.model_id))?.model.state).toBe("deleting");
    expect(await history(store, "model", model.model_id)).toEqual([
      "null -> active (deployed)",
      "active -> deleting (deleted)",
    ]);
  });

  test("a model is purged only when it is deleting and its last instance has ended", async () => {
    const { store } = fixture();
    const { model, instance } = await startInstance(store);
    expect(await store.purgeModel(model.model_id)).toBe(false);
    await store.deleteModel(model.model_id);
    expect(await store.purgeModel(model.model_id)).toBe(false);
    await store.moveInstance({
      instance_id: instance.instance_id,
      from: ["loading"],
      to: "gone",
      reason: "test",
    });
    expect(await store.purgeModel(model.model_id)).toBe(true);
    expect(await store.purgeModel(model.model_id)).toBe(false);
    expect(await store.getModel(model.model_id)).toBeNull();
    expect((await history(store, "model", model.model_id)).at(-1)).toBe("deleting -> removed (purged)");
  });

  test("a deleting, an unknown and a replaced model get no new instance", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const worker = await register(store);
    const wanted = wantedInstance(model, worker);
    await store.deployModel(makeDeployRequest({ id: model.model_id, replace: true }), resolvedSettings);
    expect(await store.createInstance(wanted)).toEqual({ ok: false, reason: "conflict" });
    await store.deleteModel(model.model_id);
    expect(await store.createInstance(wanted)).toEqual({ ok: false, reason: "model_not_active" });
    expect(await store.createInstance({ ...wanted, model_id: "nobody" })).toEqual({
      ok: false,
      reason: "model_not_active",
    });
  });
}
