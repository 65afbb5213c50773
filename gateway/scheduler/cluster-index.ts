/**
 * The scheduler's view, built once from facts and then changed in place as instances come, go and are used: a decision
 * finds what concerns its model without looking at the rest. One owner changes it, between decisions.
 */
import type { StandbyReport } from "../../schema/cluster/membership.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { DeviceKind, Tier } from "../../schema/vocab.ts";
import { noBytes } from "./estimate.ts";
import type { Estimates } from "./estimates.ts";
import { compareText } from "./order.ts";
import {
  type ClusterFacts,
  type ClusterView,
  type DeviceNode,
  type DeviceView,
  type HolderNode,
  type HostNode,
  type InstanceNode,
  type InstanceUsage,
  type InstanceView,
  type LinkView,
  type ProblemView,
  type RemoteSources,
  unused,
} from "./view.ts";

class Host implements HostNode {
  readonly devices: Device[] = [];
  disk: LinkView | null = null;
  network: LinkView | null = null;
  working = 0;
  readonly loading = new Set<Instance>();
  readonly worker_id: WorkerId;
  readonly accepting: boolean;
  readonly #standbyOf: StandbyOf;

  constructor(worker_id: WorkerId, accepting: boolean, standbyOf: StandbyOf) {
    this.worker_id = worker_id;
    this.accepting = accepting;
    this.#standbyOf = standbyOf;
  }

  get standby(): StandbyReport | null {
    return this.#standbyOf(this.worker_id);
  }
}

export type StandbyOf = (worker_id: WorkerId) => StandbyReport | null;

const unknownStandby: StandbyOf = () => null;

class Device implements DeviceNode {
  readonly host: Host;
  readonly device_id: string;
  readonly kind: DeviceKind;
  readonly memory_bytes: number;
  readonly repacks: boolean;
  readonly bus_name: string;
  readonly instances: Instance[] = [];
  reserved_bytes: number;
  idle_bytes = 0;
  bus: LinkView | null = null;

  constructor(host: Host, facts: Omit<DeviceView, "worker_id">) {
    this.host = host;
    this.device_id = facts.device_id;
    this.kind = facts.kind;
    this.memory_bytes = facts.memory_bytes;
    this.repacks = facts.repacks ?? false;
    this.reserved_bytes = facts.reserved_bytes;
    this.bus_name = `device:${facts.device_id}`;
  }
}

interface Instance extends InstanceNode {
  view: InstanceView;
  readonly device: Device | null;
  usage: InstanceUsage;
  kept: boolean;
  /** What its device counts as idle for it, and whether its host counts it as working. */
  idle_bytes: number;
  isWorking: boolean;
}

/** Nobody uses it, and it may be stopped. */
export function isIdle({ view, usage, kept }: InstanceNode): boolean {
  return (view.state === "ready" || view.state === "parked") && usage.in_flight === 0 && !kept;
}

const noMinimums: ReadonlyMap<ModelId, number> = new Map();

export class ClusterIndex implements ClusterView {
  readonly hosts: readonly Host[];
  readonly device_count: number;
  readonly problems: readonly ProblemView[];
  readonly remote: RemoteSources;
  readonly estimates: Estimates;
  readonly #byWorker = new Map<WorkerId, Host>();
  readonly #instances = new Map<InstanceId, Instance>();
  readonly #byModel = new Map<ModelId, Instance[]>();
  readonly #holders = new Map<CheckpointDigest, HolderNode[]>();
  readonly #weights: ReadonlyMap<CheckpointDigest, number>;
  readonly #minimums: ReadonlyMap<ModelId, number>;

  /**
   * `weights` says how large the checkpoints of deployed models are, `minimums` how many instances some always have, and
   * `standbyOf`, asked anew by each decision, what workers have in reserve.
   */
  constructor(
    facts: ClusterFacts,
    estimates: Estimates,
    weights: ReadonlyMap<CheckpointDigest, number>,
    minimums = noMinimums,
    standbyOf = unknownStandby,
  ) {
    this.problems = facts.problems;
    this.remote = facts.remote;
    this.estimates = estimates;
    this.#weights = weights;
    this.#minimums = minimums;
    for (const { worker_id, accepting } of facts.workers) {
      this.#byWorker.set(worker_id, new Host(worker_id, accepting, standbyOf));
    }
    this.hosts = [...this.#byWorker.values()].sort((a, b) => compareText(a.worker_id, b.worker_id));
    for (const device of facts.devices) {
      const host = this.#byWorker.get(device.worker_id);
      host?.devices.push(new Device(host, device));
    }
    for (const { devices } of this.hosts) devices.sort((a, b) => compareText(a.device_id, b.device_id));
    this.device_count = this.hosts.reduce((sum, { devices }) => sum + devices.length, 0);
    for (const link of facts.links) this.#addLink(link);
    this.#addHolders(facts);
    for (const view of facts.instances) this.#add(view, facts.usage.get(view.instance_id) ?? unused);
    for (const model_id of minimums.keys()) this.#keep(model_id);
  }

  #addLink(link: LinkView): void {
    const host = this.#byWorker.get(link.worker_id);
    if (host === undefined) return;
    if (link.link === "disk") host.disk = link;
    else if (link.link === "network") host.network = link;
    else for (const device of host.devices) if (device.bus_name === link.link) device.bus = link;
  }

  #addHolders(facts: ClusterFacts): void {
    const known = new Map<CheckpointDigest, Map<Host, Record<Tier, number>>>();
    for (const { worker_id, checkpoint, tier, bytes_present } of facts.sources) {
      const host = this.#byWorker.get(worker_id);
      if (host === undefined) continue;
      const byHost = known.get(checkpoint) ?? new Map<Host, Record<Tier, number>>();
      known.set(checkpoint, byHost);
      const bytes = byHost.get(host) ?? { ...noBytes };
      byHost.set(host, bytes);
      bytes[tier] = Math.max(bytes[tier], bytes_present);
    }
    for (const [checkpoint, byHost] of known) {
      const holders = [...byHost].map(([host, bytes]) => ({ host, bytes }));
      this.#holders.set(checkpoint, holders);
    }
  }

  instancesOf(model_id: ModelId): readonly InstanceNode[] {
    return this.#byModel.get(model_id) ?? [];
  }

  holdersOf(checkpoint: CheckpointDigest): readonly HolderNode[] {
    return this.#holders.get(checkpoint) ?? [];
  }

  weightsOf(checkpoint: CheckpointDigest): number | null {
    return this.#weights.get(checkpoint) ?? null;
  }

  /** Takes a new or changed instance in; the books of its device follow. `usage` may go on changing: see `refresh`. */
  put(view: InstanceView, usage: InstanceUsage): void {
    const before = this.#instances.get(view.instance_id);
    if (before === undefined) {
      const { device } = this.#add(view, usage);
      if (device !== null) device.reserved_bytes += view.memory_bytes;
      this.#keep(view.model_id);
      return;
    }
    if (before.device !== null) before.device.reserved_bytes += view.memory_bytes - before.view.memory_bytes;
    before.view = view;
    before.usage = usage;
    count(before);
    this.#keep(view.model_id);
  }

  /** Takes an ended instance out and frees what it booked. */
  remove(instance_id: InstanceId): void {
    const instance = this.#instances.get(instance_id);
    if (instance === undefined) return;
    this.#instances.delete(instance_id);
    const { device, view } = instance;
    const siblings = this.#byModel.get(view.model_id) ?? [];
    siblings.splice(siblings.indexOf(instance), 1);
    if (siblings.length === 0) this.#byModel.delete(view.model_id);
    if (device !== null) {
      device.instances.splice(device.instances.indexOf(instance), 1);
      device.reserved_bytes -= view.memory_bytes;
      device.idle_bytes -= instance.idle_bytes;
      if (instance.isWorking) device.host.working -= 1;
      device.host.loading.delete(instance);
    }
    this.#keep(view.model_id);
  }

  /** The usage of the instance has changed. Unknown instances are none of the scheduler's business. */
  refresh(instance_id: InstanceId): void {
    const instance = this.#instances.get(instance_id);
    if (instance !== undefined) count(instance);
  }

  /**
   * Marks the instances that their model always has: those that serve, by their ids. Requests go to the first of equally
   * loaded ones, too, so that it is the others that idle.
   */
  #keep(model_id: ModelId): void {
    const minimum = this.#minimums.get(model_id) ?? 0;
    if (minimum === 0) return;
    const siblings = this.#byModel.get(model_id) ?? [];
    const serving = siblings
      .filter(({ view }) => view.state === "ready" || view.state === "loading")
      .sort((a, b) => compareText(a.view.instance_id, b.view.instance_id));
    const kept = new Set(serving.slice(0, minimum));
    for (const instance of siblings) {
      instance.kept = kept.has(instance);
      count(instance);
    }
  }

  #add(view: InstanceView, usage: InstanceUsage): Instance {
    const host = this.#byWorker.get(view.worker_id);
    const device = host?.devices.find((d) => d.device_id === view.device_id) ?? null;
    const instance: Instance = { view, device, usage, kept: false, idle_bytes: 0, isWorking: false };
    this.#instances.set(view.instance_id, instance);
    const siblings = this.#byModel.get(view.model_id);
    if (siblings === undefined) this.#byModel.set(view.model_id, [instance]);
    else siblings.push(instance);
    device?.instances.push(instance);
    count(instance);
    return instance;
  }
}

/** Brings the counts of its device and host up to date. */
function count(instance: Instance): void {
  const { device, view, usage } = instance;
  if (device === null) return;
  const idle_bytes = isIdle(instance) ? view.memory_bytes : 0;
  device.idle_bytes += idle_bytes - instance.idle_bytes;
  instance.idle_bytes = idle_bytes;
  const isLoading = view.state === "loading";
  if (isLoading) device.host.loading.add(instance);
  else device.host.loading.delete(instance);
  const isWorking = isLoading || usage.in_flight > 0;
  device.host.working += Number(isWorking) - Number(instance.isWorking);
  instance.isWorking = isWorking;
}
