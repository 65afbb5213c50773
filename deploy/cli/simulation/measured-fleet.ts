/** A live fleet as a cluster to simulate: what workers report, models are deployed with, and gateways have learned. Pure. */
import type { AdminEstimate, AdminWorker, DeployedModel } from "../../../schema/api/admin.ts";
import { type SimulatedCluster, simulatedCluster } from "../../../schema/simulation.ts";
import { CommandFailure } from "../failure.ts";

export interface LiveFleet {
  readonly workers: readonly AdminWorker[];
  readonly models: readonly DeployedModel[];
  readonly estimates: readonly AdminEstimate[];
}

/** What counts where nobody has measured: one NVMe disk, PCIe 4 x16, a short answer on a mid-size device. */
const nominal = {
  disk_bytes_per_s: 2e9,
  bus_bytes_per_s: 20e9,
  token_ms: 8,
  prefill_ms_per_token: 1,
  init_ms: 150,
};
/** Workers do not tell how large their disks are; what lies there stays there. */
const disk_bytes = 4e12;

/** Throws CommandFailure for a fleet without workers that take work, or without models. */
export function clusterOfFleet({ workers, models, estimates }: LiveFleet): SimulatedCluster {
  const ready = workers.filter(({ state }) => state === "ready");
  const active = models.filter(({ state }) => state === "active");
  if (ready.length === 0 || active.length === 0) {
    throw new CommandFailure(
      `the fleet has ${ready.length} workers that take work and ${active.length} models`,
      {
        advice: "Start workers and deploy models, or describe a cluster in a file.",
      },
    );
  }
  const learned = new Learned(estimates);
  const hosts = ready.map((worker) => hostOf(worker, learned));
  const simulated = active.map((model) => modelOf(model, ready, learned));
  return simulatedCluster.parse({
    hosts,
    models: simulated,
    system: { fetch: false, migrate: false, turn_ms: 250 },
  });
}

class Learned {
  readonly #estimates: readonly AdminEstimate[];

  constructor(estimates: readonly AdminEstimate[]) {
    this.#estimates = estimates;
  }

  /** Of the given worker and model, null for any; of several ways a start begins the one that was seen most. */
  value(
    quantity: AdminEstimate["quantity"],
    about: { readonly worker_id?: string; readonly model_id?: string },
    fits: (detail: string) => boolean = () => true,
  ): number | null {
    const found = this.#estimates
      .filter((one) => one.quantity === quantity && one.value !== null && fits(one.detail ?? ""))
      .filter(
        (one) => one.worker_id === (about.worker_id ?? null) && one.model_id === (about.model_id ?? null),
      )
      .toSorted((a, b) => b.observations - a.observations);
    return found[0]?.value ?? null;
  }
}

function hostOf({ worker_id, devices, links, placements }: AdminWorker, learned: Learned) {
  const [device] = devices;
  const rate = (link: string, otherwise: number) => {
    const seen = learned.value("bandwidth", { worker_id }, (detail) => detail === link);
    if (seen !== null) return seen * 1_000;
    return links.find((report) => report.link === link)?.bandwidth_bytes_per_s ?? otherwise;
  };
  const memory_bytes = Math.min(...devices.map((one) => one.memory_bytes));
  const cached_bytes = placements
    .filter(({ tier }) => tier === "host")
    .reduce((sum, p) => sum + p.bytes_present, 0);
  return {
    ...{ name: worker_id, count: 1, devices: devices.length, device_kind: device?.kind ?? "cpu" },
    ...{
      device_memory_bytes: memory_bytes,
      host_memory_bytes: Math.max(cached_bytes, memory_bytes),
      disk_bytes,
    },
    disk_bytes_per_s: rate("disk", nominal.disk_bytes_per_s),
    bus_bytes_per_s: rate(`device:${device?.device_id ?? ""}`, nominal.bus_bytes_per_s),
  };
}

function modelOf(model: DeployedModel, workers: readonly AdminWorker[], learned: Learned) {
  const {
    id,
    checkpoint,
    weights_bytes,
    context_tokens,
    slots,
    keep_alive_ms,
    min_instances,
    max_instances,
  } = model;
  const about = { model_id: id };
  const isQuiet = (detail: string) => !detail.includes("/") && detail !== "resume";
  const holders = workers.filter(({ placements }) =>
    placements.some((p) => p.checkpoint === checkpoint && p.tier === "disk"),
  );
  return {
    ...{ name: id, weights_bytes, context_tokens, slots, keep_alive_ms, min_instances, max_instances },
    kv_bytes_per_token: model.kv_bytes_per_token ?? 0,
    ...(model.embedding === undefined ? {} : { embedding: model.embedding }),
    ...(model.vocabulary_tokens === undefined ? {} : { vocabulary_tokens: model.vocabulary_tokens }),
    prefill_ms_per_token: learned.value("prefill", about) ?? nominal.prefill_ms_per_token,
    token_ms: Math.max(0.001, learned.value("decode", about) ?? nominal.token_ms),
    build_ms: learned.value("build", about, isQuiet) ?? 0,
    init_ms: learned.value("init", about, isQuiet) ?? nominal.init_ms,
    disk_copies: holders.length === workers.length ? null : holders.length,
  };
}
