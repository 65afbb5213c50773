/** What the suites of the state store are given, and the steps that many of their tests begin with. */
import type { CreateInstanceResult, NewInstance, StateStore } from "../../../gateway/ports.ts";
import type { RegisterRequest } from "../../../schema/cluster/membership.ts";
import type { InstanceRow, ModelRow } from "../../../schema/db/tables.ts";
import type { EventEntity } from "../../../schema/vocab.ts";
import {
  cpuDevice,
  makeDeployRequest,
  makeRegisterRequest,
  newInstanceId,
  resolvedSettings,
} from "../../support/cluster-facts.ts";

export interface StateStoreFixture {
  readonly store: StateStore;
  /** A store over the same state after everything was closed; absent where state lives in memory. */
  reopen?(): Promise<StateStore>;
  close(): Promise<void>;
}

/** Returns the fixture of the running suite. */
export type Fixture = () => StateStoreFixture;

/** Some wall time. */
export const now_ms = Date.UTC(2026, 0, 1);

export async function deploy(store: StateStore): Promise<ModelRow> {
  return await store.deployModel(makeDeployRequest(), resolvedSettings);
}

export async function register(store: StateStore, memory_bytes = 1_000): Promise<RegisterRequest> {
  const worker = makeRegisterRequest({ devices: [cpuDevice(memory_bytes)] });
  await store.registerWorker(worker);
  return worker;
}

export function wantedInstance(
  model: ModelRow,
  worker: RegisterRequest,
  fields: Partial<NewInstance> = {},
): NewInstance {
  return {
    instance_id: newInstanceId(),
    model_id: model.model_id,
    checkpoint: model.checkpoint,
    worker_id: worker.worker_id,
    device_id: "cpu",
    context_tokens: model.context_tokens,
    slots: model.slots,
    memory_bytes: 400,
    expected_live: 0,
    ...fields,
  };
}

/** A loading instance of 400 bytes of a new model on a new worker of 1,000 bytes. */
export async function startInstance(
  store: StateStore,
): Promise<{ model: ModelRow; worker: RegisterRequest; instance: InstanceRow }> {
  const model = await deploy(store);
  const worker = await register(store);
  return { model, worker, instance: created(await store.createInstance(wantedInstance(model, worker))) };
}

export function created(result: CreateInstanceResult): InstanceRow {
  if (!result.ok) throw new Error(`no instance was created: ${result.reason}`);
  return result.instance;
}

export async function workerRow(store: StateStore, worker: { worker_id: string }) {
  return (await store.snapshot()).workers.find((row) => row.worker_id === worker.worker_id);
}

export async function reservedBytes(
  store: StateStore,
  worker: { worker_id: string },
): Promise<number | undefined> {
  const { devices } = await store.snapshot();
  return devices.find((row) => row.worker_id === worker.worker_id)?.reserved_bytes;
}

export async function liveInstance(store: StateStore, instance_id: string): Promise<InstanceRow | undefined> {
  return (await store.snapshot()).instances.find((row) => row.instance_id === instance_id);
}

/** `from -> to (reason)` of an entity's events, oldest first. */
export async function history(store: StateStore, entity: EventEntity, entity_id: string): Promise<string[]> {
  const events = await store.listEvents({ entity, entity_id, limit: 100 });
  return events.toReversed().map((event) => `${event.from_state} -> ${event.to_state} (${event.reason})`);
}
