/** LoRA adapters of models: added once, replaced, removed, and gone with their model. */
import { expect, test } from "bun:test";
import type { NewAdapter, StateStore } from "../../../gateway/ports.ts";
import type { ModelRow } from "../../../schema/db/tables.ts";
import {
  makeDeployRequest,
  makeHeartbeat,
  makePlacement,
  makeRegisterRequest,
  newDigest,
  resolvedSettings,
} from "../../support/cluster-facts.ts";
import { deploy, type Fixture, history } from "./fixture.ts";

const newAdapter = (model: ModelRow, fields: Partial<NewAdapter> = {}): NewAdapter => ({
  model_id: model.model_id,
  name: "legal",
  base: model.checkpoint,
  checkpoint: newDigest(),
  rank: 8,
  weights_bytes: 4_096,
  replace: false,
  ...fields,
});
const adaptersOf = async (store: StateStore, { model_id }: ModelRow) =>
  (await store.snapshot()).adapters.filter((adapter) => adapter.model_id === model_id);
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => null,
    (error: unknown) => (error instanceof Error && "code" in error ? error.code : error),
  );

export function adapterContract(fixture: Fixture): void {
  test("an adapter is found in the snapshot by its model and name, until it is removed", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const wanted = newAdapter(model);
    const added = await store.addAdapter(wanted);
    const { base: _, replace: __, ...fields } = wanted;
    expect(added).toEqual({ ...fields, created_at: added.created_at });
    await store.addAdapter(newAdapter(model, { name: "arts" }));
    expect((await adaptersOf(store, model)).map(({ name }) => name)).toEqual(["arts", "legal"]);
    expect((await adaptersOf(store, model))[1]).toEqual(added);
    expect(await store.removeAdapter(model.model_id, "legal")).toBe(true);
    expect(await store.removeAdapter(model.model_id, "legal")).toBe(false);
    expect((await adaptersOf(store, model)).map(({ name }) => name)).toEqual(["arts"]);
    expect(await history(store, "adapter", `${model.model_id}:legal`)).toEqual([
      "null -> active (added)",
      "active -> removed (removed)",
    ]);
  });

  test("a name is taken once, unless it is replaced", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const first = await store.addAdapter(newAdapter(model));
    const second = newAdapter(model, { rank: 16 });
    expect(await codeOf(store.addAdapter(second))).toBe("adapter_exists");
    expect(await adaptersOf(store, model)).toEqual([first]);
    const replaced = await store.addAdapter({ ...second, replace: true });
    expect(replaced).toMatchObject({ rank: 16, checkpoint: second.checkpoint, created_at: first.created_at });
    expect(await adaptersOf(store, model)).toEqual([replaced]);
  });

  test("a model and an adapter never have one id", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    await store.addAdapter(newAdapter(model));
    const namesake = makeDeployRequest({ id: `${model.model_id}:legal` });
    expect(await codeOf(store.deployModel(namesake, resolvedSettings))).toBe("model_exists");
    await store.deployModel(makeDeployRequest({ id: `${model.model_id}:arts` }), resolvedSettings);
    expect(await codeOf(store.addAdapter(newAdapter(model, { name: "arts" })))).toBe("model_exists");
  });

  test("an adapter is added to the model that it was checked against, and to no other", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    expect(await codeOf(store.addAdapter(newAdapter(model, { base: newDigest() })))).toBe("state_conflict");
    expect(await codeOf(store.addAdapter(newAdapter(model, { model_id: "nobody" })))).toBe("model_not_found");
    await store.deleteModel(model.model_id);
    expect(await codeOf(store.addAdapter(newAdapter(model)))).toBe("model_not_found");
    expect(await adaptersOf(store, model)).toEqual([]);
  });

  test("a model with adapters stays what they were made for; other settings may change", async () => {
    const { store } = fixture();
    const request = makeDeployRequest();
    const model = await store.deployModel(request, resolvedSettings);
    await store.addAdapter(newAdapter(model));
    const other = makeDeployRequest({ id: model.model_id, replace: true });
    expect(await codeOf(store.deployModel(other, resolvedSettings))).toBe("state_conflict");
    const exact = { ...request, replace: true, settings: { slots: 4, deterministic: true } };
    expect(await codeOf(store.deployModel(exact, resolvedSettings))).toBe("state_conflict");
    const wider = { ...request, replace: true, settings: { slots: 8 } };
    expect(await store.deployModel(wider, resolvedSettings)).toMatchObject({ slots: 8 });
    expect(await adaptersOf(store, model)).toHaveLength(1);
    await store.removeAdapter(model.model_id, "legal");
    expect(await store.deployModel(other, resolvedSettings)).toMatchObject({
      checkpoint: other.manifest.digest,
    });
  });

  test("adapters go with their model", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    await store.addAdapter(newAdapter(model));
    await store.deleteModel(model.model_id);
    expect(await store.purgeModel(model.model_id)).toBe(true);
    expect(await adaptersOf(store, model)).toEqual([]);
  });

  test("a heartbeat is told that an adapter's checkpoint is deployed, so that it stays on disk", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const { checkpoint } = await store.addAdapter(newAdapter(model));
    const placements = [makePlacement({ checkpoint }), makePlacement({ checkpoint: newDigest() })];
    const worker = makeRegisterRequest({ placements });
    await store.registerWorker(worker);
    const { deployed } = await store.heartbeat(makeHeartbeat(worker, 1, { placements }));
    expect(deployed).toEqual([checkpoint]);
  });

  test("whoever reads what changed hears of adapters that came and went, with their model", async () => {
    const { store } = fixture();
    const [model, other] = [await deploy(store), await deploy(store)];
    await store.addAdapter(newAdapter(other));
    const names = async (since: number) => {
      const { adapters, models } = await store.changes(since);
      expect(models.map(({ model_id }) => model_id)).toContain(model.model_id);
      return adapters.filter(({ model_id }) => model_id === model.model_id).map(({ name }) => name);
    };
    let { mark } = await store.changes(null);
    await store.addAdapter(newAdapter(model));
    expect(await names(mark)).toEqual(["legal"]);
    ({ mark } = await store.changes(null));
    await store.addAdapter(newAdapter(model, { rank: 16, replace: true }));
    expect(await names(mark)).toEqual(["legal"]);
    ({ mark } = await store.changes(null));
    await store.removeAdapter(model.model_id, "legal");
    expect(await names(mark)).toEqual([]);
  });
}
