/** The workers' API of a simulated cluster: what the gateway asks takes as long as the host says. */
import type { LoadEvent, LoadRequest } from "../../schema/cluster/instances.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import { type Tier, tiers } from "../../schema/vocab.ts";
import type { Clock, WorkerAddress, WorkerClient } from "../ports.ts";
import type { ClusterStore } from "./cluster-store.ts";
import type { SimulatedHost } from "./host.ts";

type Used = "load" | "unload" | "park";

export class SimulatedWorkers implements Pick<WorkerClient, Used> {
  readonly #clock: Clock;
  readonly #store: ClusterStore;
  readonly #hosts: ReadonlyMap<WorkerId, SimulatedHost>;
  readonly #parked = new Set<InstanceId>();
  /** Where the bytes of every load came from. */
  readonly loads: Record<Tier, number> = { device: 0, host: 0, disk: 0, peer: 0, origin: 0 };
  /** How often instances came back from being parked. */
  resumes = 0;
  readonly #tiers = new Map<InstanceId, Tier>();

  constructor(clock: Clock, store: ClusterStore, hosts: ReadonlyMap<WorkerId, SimulatedHost>) {
    this.#clock = clock;
    this.#store = store;
    this.#hosts = hosts;
  }

  async *load({ worker_id }: WorkerAddress, request: LoadRequest): AsyncGenerator<LoadEvent> {
    const { instance_id, device_id, model_id } = request;
    const host = this.#host(worker_id);
    const isParked = this.#parked.delete(instance_id);
    if (isParked) this.resumes += 1;
    const model = this.#store.specOf(model_id);
    const load = host.load(instance_id, device_id, model, this.#clock.wallMs(), isParked);
    this.loads[load.tier] += 1;
    this.#tiers.set(instance_id, load.tier);
    this.#store.hostChanged(worker_id);
    await this.#clock.sleep(load.ready_at_ms - this.#clock.wallMs());
    this.#store.hostChanged(worker_id);
    yield { type: "ready", timings: load.timings };
  }

  /** Where the weights of a live instance came from; its place among `tiers`. */
  tierOf(instance_id: InstanceId): number {
    return tiers.indexOf(this.#tiers.get(instance_id) ?? "device");
  }

  async unload({ worker_id }: WorkerAddress, instance_id: InstanceId): Promise<void> {
    const row = this.#store.live.get(instance_id);
    if (row !== undefined) await this.#clock.sleep(this.#store.specOf(row.model_id).stop_ms);
    this.#parked.delete(instance_id);
    this.#tiers.delete(instance_id);
    this.#letGo(worker_id, instance_id);
  }

  async park({ worker_id }: WorkerAddress, instance_id: InstanceId): Promise<void> {
    await this.#clock.sleep(park_ms);
    this.#parked.add(instance_id);
    this.#letGo(worker_id, instance_id);
  }

  #letGo(worker_id: WorkerId, instance_id: InstanceId): void {
    this.#host(worker_id).release(instance_id);
    this.#store.hostChanged(worker_id);
  }

  #host(worker_id: WorkerId): SimulatedHost {
    const host = this.#hosts.get(worker_id);
    if (host === undefined) throw new Error(`there is no worker ${worker_id}`);
    return host;
  }
}

/** An engine gives weights and cache back in one step of its loop. */
const park_ms = 10;
