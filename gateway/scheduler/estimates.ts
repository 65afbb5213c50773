/** The numbers that were learned about a cluster, as the scheduler asks for them, and what counts before any were. */
import type { ModelId, WorkerId } from "../../schema/ids.ts";
import type { DeviceKind, Tier } from "../../schema/vocab.ts";

/** How an instance becomes ready: from nothing, or a parked one again. */
export type StartHow = "start" | "resume";

/** Learned about the starts of one model. */
export interface ModelEstimates {
  /** What a start costs beyond the travel of its bytes, in milliseconds. */
  initMs(worker_id: WorkerId, kind: DeviceKind, how: StartHow): number;
  /** How long a request holds a slot, in milliseconds. */
  readonly service_ms: number;
  /** Time to compute so many tokens of so many generations again at their destination, in milliseconds. */
  migrationMs(kind: DeviceKind, tokens: number, generations: number): number;
}

/** Numbers do not change while one decision looks at them. */
export interface Estimates {
  model(model_id: ModelId): ModelEstimates;
  /** Bytes per millisecond by link of a worker; null when none of them was seen at work. */
  links(worker_id: WorkerId): ReadonlyMap<string, number> | null;
}

/**
 * Bytes per millisecond out of each tier: PCIe 4 x16 out of host memory, one NVMe disk, 10 Gbit/s between hosts,
 * 1 Gbit/s from outside. They count until a probe or loads have shown what a link does.
 */
export const nominal_bytes_per_ms: Readonly<Record<Tier, number>> = {
  device: Number.POSITIVE_INFINITY,
  host: 20_000_000,
  disk: 2_000_000,
  peer: 1_000_000,
  origin: 100_000,
};

/** Process and model, as measured without a reserve; a parked instance has both. */
export const nominal_init_ms: Readonly<Record<StartHow, number>> = { start: 300, resume: 5 };

/** A short answer. */
export const nominal_service_ms = 1_000;

/** Prefill of a token on a mid-size device, and one round trip. */
export const nominal_migration = { ms_per_token: 1, base_ms: 50 } as const;

const nominalModel: ModelEstimates = {
  initMs: (_worker_id, _kind, how) => nominal_init_ms[how],
  service_ms: nominal_service_ms,
  migrationMs: (_kind, tokens, generations) =>
    nominal_migration.ms_per_token * tokens + nominal_migration.base_ms * generations,
};

export const nominalEstimates: Estimates = { model: () => nominalModel, links: () => null };
