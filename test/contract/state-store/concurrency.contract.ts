/** Several gateways at once: nothing is booked twice, nothing freed twice, whoever is first wins. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { ClusterMirror } from "../../../gateway/placement/cluster-mirror.ts";
import type { StateStore } from "../../../gateway/ports.ts";
import type { RegisterRequest } from "../../../schema/cluster/membership.ts";
import type { ModelRow } from "../../../schema/db/tables.ts";
import {
  makeHeartbeat,
  makeInstanceReport,
  makePlacement,
  newIncarnation,
} from "../../support/cluster-facts.ts";
import { checkAsyncProperty } from "../../support/property.ts";
import {
  created,
  deploy,
  type Fixture,
  history,
  register,
  reservedBytes,
  startInstance,
  wantedInstance,
} from "./fixture.ts";

export function concurrencyContract(fixture: Fixture): void {
  test("of 50 concurrent starts of a cold model one wins, wherever they would run", async () => {
    const { store } = fixture();
    const workers = await Promise.all(Array.from({ length: 10 }, () => register(store, 1_000_000)));
    // Rounds, since two starts must meet within the time of one statement to get in each other's way.
    for (let round = 0; round < 8; round++) {
      const model = await deploy(store);
      const starts = Array.from({ length: 5 }, () =>
        workers.map((worker) => wantedInstance(model, worker)),
      ).flat();
      const results = await Promise.all(starts.map((wanted) => store.createInstance(wanted)));
      expect(results.filter((result) => result.ok)).toHaveLength(1);
      expect(results.filter((result) => !result.ok && result.reason === "conflict")).toHaveLength(49);
    }
    const reserved = await Promise.all(workers.map((worker) => reservedBytes(store, worker)));
    expect(reserved.reduce((sum: number, bytes) => sum + (bytes ?? 0), 0)).toBe(8 * 400);
  });

  test("50 concurrent starts of different models book no more than the device has", async () => {
    const { store } = fixture();
    const worker = await register(store, 1_000);
    const models = await Promise.all(Array.from({ length: 50 }, () => deploy(store)));
    const results = await Promise.all(
      models.map((model) => store.createInstance(wantedInstance(model, worker, { memory_bytes: 130 }))),
    );
    expect(results.filter((result) => result.ok)).toHaveLength(7);
    expect(results.filter((result) => !result.ok && result.reason === "no_memory")).toHaveLength(43);
    expect(await reservedBytes(store, worker)).toBe(910);
  });

  test("an instance that everybody ends at once frees its memory once", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    created(await store.createInstance(wantedInstance(model, worker, { expected_live: 1 })));
    const { instance_id } = instance;
    const ends = Array.from({ length: 8 }, async (_, i) => {
      if (i === 0) {
        const instances = [makeInstanceReport(instance_id, { state: "failed" })];
        await store.heartbeat(makeHeartbeat(worker, 0, { instances }));
        return false;
      }
      return await store.moveInstance({
        instance_id,
        from: ["loading", "ready"],
        to: "gone",
        reason: "test",
      });
    });
    const won = (await Promise.all(ends)).filter((result) => result).length;
    expect(won).toBeLessThanOrEqual(1);
    expect(await reservedBytes(store, worker)).toBe(400);
    expect(await history(store, "instance", instance_id)).toHaveLength(2);
  });

  test("a worker that starts anew while instances are started on it keeps a sound book", async () => {
    const { store } = fixture();
    const worker = await register(store, 1_000_000);
    for (let round = 0; round < 30; round++) {
      const models = await Promise.all(Array.from({ length: 4 }, () => deploy(store)));
      const start = (model: ModelRow) => store.createInstance(wantedInstance(model, worker));
      const incarnations = [newIncarnation(), newIncarnation()];
      const restarts = incarnations.map((incarnation) => store.registerWorker({ ...worker, incarnation }));
      await Promise.all([...models.map(start), ...restarts]);
      const { workers, instances } = await store.snapshot();
      const row = workers.find((w) => w.worker_id === worker.worker_id);
      expect(incarnations).toContain(row?.incarnation ?? "");
      const live = instances.filter((i) => i.worker_id === worker.worker_id);
      expect(live.filter((i) => i.incarnation !== row?.incarnation)).toEqual([]);
      expect(await reservedBytes(store, worker)).toBe(live.length * 400);
    }
  }, 60_000);

  test("two gateways that deploy one name at once agree on one model", async () => {
    const { store } = fixture();
    const first = await deploy(store);
    await store.deleteModel(first.model_id);
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, (_, i) =>
        i % 2 === 0 ? store.purgeModel(first.model_id) : deploySame(store, first),
      ),
    );
    const refused = results.filter((result) => result.status === "rejected");
    for (const result of refused) expect(result.reason).toMatchObject({ code: "model_exists" });
    const found = await store.getModel(first.model_id);
    const deployments = (await history(store, "model", first.model_id)).filter((line) =>
      line.includes("(deployed)"),
    );
    expect(deployments.length).toBe(found === null || found.model.state === "deleting" ? 1 : 2);
  });

  test("whatever happens in whatever order, bytes are booked for live instances and changes tell everything", async () => {
    const { store } = fixture();
    const rounds = fc.array(fc.array(step, { minLength: 1, maxLength: 6 }), { maxLength: 6 });
    const holds = async (all: Step[][]) => {
      const cluster = new Cluster(store, await deploy(store), [await register(store), await register(store)]);
      for (const round of all) {
        await Promise.all(round.map((s) => cluster.take(s)));
        await cluster.check();
      }
    };
    await checkAsyncProperty(rounds, holds, 40);
  }, 120_000);
}

async function deploySame(store: StateStore, model: ModelRow): Promise<void> {
  const found = await store.getModel(model.model_id);
  if (found === null) return;
  await store.deployModel(
    { id: model.model_id, manifest: found.checkpoint.manifest, settings: { slots: 1 }, replace: false },
    { context_tokens: 16, keep_alive_ms: 0 },
  );
}

const isSame = (worker: RegisterRequest) => (row: { worker_id: string }) =>
  row.worker_id === worker.worker_id;

const pick = fc.nat({ max: 1_000 });
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ op: fc.constant("create" as const), pick, bytes: fc.nat({ max: 700 }) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant("move" as const),
      pick,
      to: fc.constantFrom("ready" as const, "draining" as const, "failed" as const, "gone" as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("report_failed" as const), pick }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("restart" as const), pick }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("register_again" as const), pick }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("expire" as const), pick }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const fromStates = {
  ready: ["loading", "draining"],
  draining: ["ready"],
  failed: ["loading", "ready", "draining"],
  gone: ["loading", "ready", "draining", "failed"],
} as const;

/** Two workers and a model under random steps; what the store answers is checked, not predicted. */
class Cluster {
  readonly #store: StateStore;
  readonly #model: ModelRow;
  readonly #workers: RegisterRequest[];
  readonly #instances: string[] = [];
  readonly #placements = Array.from({ length: 4 }, () => makePlacement());
  /** What a gateway knows that reads changes only. */
  readonly #mirror = new ClusterMirror();
  #sequence = 0;

  constructor(store: StateStore, model: ModelRow, workers: RegisterRequest[]) {
    this.#store = store;
    this.#model = model;
    this.#workers = workers;
  }

  async take(s: Step): Promise<void> {
    const index = s.pick % this.#workers.length;
    const worker = this.#workers[index];
    const instance_id = this.#instances[s.pick % Math.max(1, this.#instances.length)];
    if (worker === undefined) throw new Error("there are always two workers");
    switch (s.op) {
      case "create": {
        const wanted = wantedInstance(this.#model, worker, { memory_bytes: s.bytes, expected_live: 5 });
        if ((await this.#store.createInstance(wanted)).ok) this.#instances.push(wanted.instance_id);
        return;
      }
      case "move":
        if (instance_id === undefined) return;
        await this.#store.moveInstance({ instance_id, from: fromStates[s.to], to: s.to, reason: "test" });
        return;
      case "report_failed": {
        const instances =
          instance_id === undefined ? [] : [makeInstanceReport(instance_id, { state: "failed" })];
        const held = s.pick % 3 === 0 ? [] : this.#placements.slice(0, s.pick % 5);
        const placements = held.map((placement, i) => ({ ...placement, bytes_present: s.pick + i }));
        const report = makeHeartbeat(worker, this.#sequence++, { instances, placements });
        await this.#store.heartbeat(report);
        return;
      }
      case "restart":
        this.#workers[index] = { ...worker, incarnation: newIncarnation() };
        await this.#store.registerWorker(this.#workers[index]);
        return;
      case "register_again":
        await this.#store.registerWorker(worker);
        return;
      case "expire":
        await this.#store.expireWorkers((await this.#store.snapshot()).workers.filter(isSame(worker)));
        await this.#store.registerWorker(worker);
        return;
    }
  }

  async check(): Promise<void> {
    const snapshot = await this.#store.snapshot();
    this.#mirror.take(await this.#store.changes(this.#mirror.mark));
    expect(this.#mirror.snapshot).toEqual(snapshot);
    const { devices, instances } = snapshot;
    for (const { worker_id } of this.#workers) {
      const live = instances.filter((row) => row.worker_id === worker_id);
      const sum = live.reduce((bytes, row) => bytes + row.memory_bytes, 0);
      const device = devices.find((row) => row.worker_id === worker_id);
      expect(device?.reserved_bytes).toBe(sum);
      expect(sum).toBeLessThanOrEqual(1_000);
    }
    expect(instances.filter((row) => row.model_id === this.#model.model_id).length).toBeLessThanOrEqual(6);
  }
}
