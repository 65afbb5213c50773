/** Who goes on with a generation that has lost its place: one gateway wins the epoch, the others read at its side. */
import type { GenerationRow } from "../../schema/db/tables.ts";
import type { GatewayId, ModelId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, StateStore } from "../ports.ts";
import type { Generation } from "./generation.ts";
import { isDatabaseAway } from "./patience.ts";

export interface ClaimDeps {
  readonly store: Pick<StateStore, "claimGeneration" | "getGeneration">;
  readonly clock: Clock;
  readonly gateway_id: GatewayId;
  /** Whether a gateway may still see to what it owns. */
  readonly isAlive: (gateway: GatewayId) => boolean;
}

export interface Claimed {
  readonly state: Generation;
  readonly model_id: ModelId;
  /** Nobody may go on without the store's word. Else a database that is away is not waited for. */
  readonly isShared: boolean;
  /** Somebody else was seen to own it: its place is right, whatever it is. */
  readonly isSuperseded: boolean;
  readonly created_at_ms: number;
  readonly signal: AbortSignal;
}

interface Place {
  readonly epoch: number;
  readonly worker_id: string;
  readonly instance_id: string;
}

export type ClaimOutcome =
  | { readonly kind: "won"; readonly epoch: number }
  /** `isOurs`: a planned move of a generation that still is this gateway's. */
  | { readonly kind: "elsewhere"; readonly at: Place; readonly isOurs: boolean }
  | { readonly kind: "ended" };

/**
 * An owner claims at once. Who only reads leaves that to the owner as long as it lives, and looks where the generation
 * has gone meanwhile. A database that is away is waited for until the signal aborts, where nobody may go on without it.
 */
export async function claim(deps: ClaimDeps, claimed: Claimed): Promise<ClaimOutcome> {
  const { clock } = deps;
  const { state, isShared, signal } = claimed;
  const until_ms = clock.monotonicMs() + limits.owner_patience_ms;
  while (!signal.aborted) {
    try {
      const outcome = await look(deps, claimed, clock.monotonicMs() >= until_ms);
      if (outcome !== null) return outcome;
    } catch (error) {
      if (!isDatabaseAway(error)) throw error;
      if (!isShared && state.is_owner) return { kind: "won", epoch: state.epoch + 1 };
    }
    await clock.sleep(limits.owner_poll_ms, signal);
  }
  return { kind: "ended" };
}

/** One look, and one claim where nobody else has it; null: to be looked at again. */
async function look(
  { store, gateway_id, isAlive }: ClaimDeps,
  { state, model_id, isSuperseded, created_at_ms }: Claimed,
  isLate: boolean,
): Promise<ClaimOutcome | null> {
  const { generation_id, is_owner } = state;
  const row = await store.getGeneration(generation_id);
  if (row !== null) {
    if (row.finished_at !== null) return { kind: "ended" };
    const isOurs = row.owner === gateway_id;
    const at = placeOf(row);
    const isElsewhere =
      at !== null && (at.worker_id !== state.worker_id || at.instance_id !== state.instance_id);
    if (at !== null && row.epoch > state.epoch && (isElsewhere || isSuperseded)) {
      return { kind: "elsewhere", at, isOurs };
    }
    // The answer to a claim of ours was lost.
    if (row.epoch > state.epoch && isOurs && is_owner) return { kind: "won", epoch: row.epoch };
  }
  const isNext = is_owner && !isSuperseded && (row === null || row.epoch <= state.epoch);
  // Its owner may be about to place it, for as long as that takes where it never ran.
  const owner = row?.owner ?? null;
  const isAttended = owner !== null && owner !== gateway_id && isAlive(owner);
  if (!isNext && isAttended && !(isLate && row?.worker_id !== null)) return null;
  const epoch = Math.max(state.epoch, row?.epoch ?? 0) + 1;
  const seen_epoch = row?.epoch ?? state.epoch;
  const wanted = { generation_id, model_id, created_at_ms, seen_epoch, epoch, owner: gateway_id };
  return (await store.claimGeneration(wanted)).won ? { kind: "won", epoch } : null;
}

function placeOf({ worker_id, instance_id, epoch }: GenerationRow): Place | null {
  return worker_id === null || instance_id === null ? null : { epoch, worker_id, instance_id };
}
