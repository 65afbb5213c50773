/** What the bench of moves has measured. */
import type { AdminMigration } from "../../../schema/api/migrations.ts";
import type { Failover } from "./failover.ts";

export const gapPlaces = ["source", "hand_over", "destination"] as const;
export type GapPlace = (typeof gapPlaces)[number];

export interface MeasuredMove {
  readonly row: AdminMigration;
  readonly context_tokens: number;
  /** From the source's last token until the destination's first. */
  readonly pause_ms: number;
  /** Longest gap of the stream from the move's begin until some tokens after its end, and the time of all of them. */
  readonly longest_gap_ms: number;
  /** Where that was: between tokens of the source, between its last one and the destination's first, or after that. */
  readonly longest_at: GapPlace;
  readonly watched_ms: number;
}

export interface Measured {
  /** Gaps of each stream while nothing moves. */
  readonly undisturbed: readonly (readonly number[])[];
  readonly moves: readonly MeasuredMove[];
  /** Gaps of the streams that stay, while others move. */
  readonly beside_ms: readonly number[];
  readonly failovers: readonly Failover[];
  readonly lost: number;
  readonly doubled: number;
  /** What the gateway has learned of moves, with the relative errors of what it expected. */
  readonly line: {
    readonly ms_per_token: number | null;
    readonly error_p50: number | null;
    readonly error_p90: number | null;
    readonly network_bytes_per_ms: number | null;
  };
}
