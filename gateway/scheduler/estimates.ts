/** The numbers that were learned about a cluster, as the scheduler asks for them, and what counts before any were. */
import type { ModelId, WorkerId } from "../../schema/ids.ts";
import type { DeviceKind, Tier } from "../../schema/vocab.ts";

/**
 * What an engine begins with: nothing, a process of the worker's reserve, one of these that has built the model, or the
 * parked instance itself.
 */
export const startHows = ["cold", "warm", "built", "resume"] as const;
export type StartHow = (typeof startHows)[number];

export interface StartState {
  readonly how: StartHow;
  /** Its bytes lie in host memory: nothing is read beside the building, and nothing checked after it. */
  readonly is_in_memory: boolean;
  /** Other instances of the host load or work, and take processors from it. */
  readonly is_beside: boolean;
}

/** Learned about the starts of one model. */
export interface ModelEstimates {
  /** Until the engine has its model, from when it may begin; its bytes travel meanwhile. */
  buildMs(worker_id: WorkerId, kind: DeviceKind, start: StartState): number;
  /** What a start costs when bytes and model are there, in milliseconds. */
  initMs(worker_id: WorkerId, kind: DeviceKind, start: StartState): number;
  /** Bytes per millisecond at which this model's file is read there; null where it was not seen. */
  diskBytesPerMs(worker_id: WorkerId): number | null;
  /** How long a request holds a slot, in milliseconds. */
  readonly service_ms: number;
  /** Tokens of a usual answer, and milliseconds of one. */
  readonly answer: { readonly tokens: number; readonly token_ms: number };
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

/** Process and model, as measured without a reserve; the others have one or both. */
export const nominal_init_ms: Readonly<Record<StartHow, number>> = {
  cold: 300,
  warm: 150,
  built: 50,
  resume: 5,
};

/** A short answer. */
export const nominal_service_ms = 1_000;
export const nominal_answer = { tokens: 128, token_ms: nominal_service_ms / 128 } as const;

/** Prefill of a token on a mid-size device, and one round trip. */
export const nominal_migration = { ms_per_token: 1, base_ms: 50 } as const;

const nominalModel: ModelEstimates = {
  buildMs: () => 0,
  initMs: (_worker_id, _kind, { how }) => nominal_init_ms[how],
  diskBytesPerMs: () => null,
  service_ms: nominal_service_ms,
  answer: nominal_answer,
  migrationMs: (_kind, tokens, generations) =>
    nominal_migration.ms_per_token * tokens + nominal_migration.base_ms * generations,
};

export const nominalEstimates: Estimates = { model: () => nominalModel, links: () => null };
