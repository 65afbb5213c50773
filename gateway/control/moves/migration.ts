/**
 * The move of one stream as a reducer: state and what happened in, next state out, and what is due then. Pure; stream-move.ts
 * feeds it and does what it says. The states are those of the row in `migrations`, so that any gateway can go on from it.
 */
import type { HandOverResponse } from "../../../schema/cluster/moves.ts";
import type { WireError } from "../../../schema/error.ts";
import type { MigrationState } from "../../../schema/vocab.ts";

export interface Progress {
  readonly rounds: number;
  /** Of prompt and output that the destination has. */
  readonly tokens: number;
  /** Of the KV cache that were sent. */
  readonly bytes: number;
}

export interface Migration {
  readonly state: MigrationState;
  /** Whether the destination's instance takes it in. */
  readonly isLoaded: boolean;
  /** Close enough to be handed over. */
  readonly isReady: boolean;
  readonly progress: Progress;
  /** That the generation was seen with. */
  readonly seen_epoch: number;
  /** The highest that was won for it; null before the hand-over. */
  readonly won_epoch: number | null;
  /** Nobody knows whether the destination runs it. */
  readonly isUnsure: boolean;
  /** Whether the destination refuses the epoch of the hand-over, or cannot be told. */
  readonly isFenced: boolean;
  /** Whether the source has to be told that it goes on, in an epoch above that of the hand-over. */
  readonly waitsToGoOn: boolean;
  readonly error: WireError | null;
}

export type MigrationInput =
  | { readonly type: "loaded" }
  /** Of the source's rounds. */
  | { readonly type: "round"; readonly progress: Progress }
  | { readonly type: "ready"; readonly progress: Progress }
  /** The generation ended where it is. */
  | { readonly type: "ended" }
  /** The destination does not get it. */
  | { readonly type: "given_up"; readonly error: WireError }
  | { readonly type: "won"; readonly epoch: number }
  /** Somebody else has taken the generation over. */
  | { readonly type: "lost"; readonly error: WireError }
  | { readonly type: "handed_over"; readonly response: HandOverResponse }
  /** The source did not answer to the hand-over. */
  | { readonly type: "silent"; readonly error: WireError }
  /** What the destination says of the hand-over; null: it does not answer. */
  | { readonly type: "found"; readonly isThere: boolean | null }
  /** The destination refuses the epoch of the hand-over from now on, unless it cannot be reached. */
  | { readonly type: "fenced" }
  /** The source goes on, or is gone itself. */
  | { readonly type: "went_on" };

export type MigrationDue =
  /** An instance at the destination. */
  | { readonly kind: "load" }
  /** Have the source send it, and follow the rounds. */
  | { readonly kind: "copy"; readonly epoch: number }
  /** Win the next epoch, in the name of its owner. */
  | { readonly kind: "claim"; readonly seen_epoch: number }
  | { readonly kind: "hand_over"; readonly epoch: number }
  /** Ask the destination whether it runs it in this epoch. */
  | { readonly kind: "ask"; readonly epoch: number }
  /** Tell the destination to refuse everything below this epoch. */
  | { readonly kind: "fence"; readonly epoch: number }
  /** Tell the source to go on in this epoch. */
  | { readonly kind: "go_on"; readonly epoch: number }
  | { readonly kind: "end" };

const nothing: Progress = { rounds: 0, tokens: 0, bytes: 0 };

export function newMigration(seen_epoch: number): Migration {
  return {
    ...{ state: "planned", isLoaded: false, isReady: false, progress: nothing, seen_epoch, won_epoch: null },
    ...{ isUnsure: false, isFenced: false, waitsToGoOn: false, error: null },
  };
}

/** As a row tells of a move whose gateway is gone: nobody knows what became of its last step. */
export function foundMigration(state: MigrationState, epoch: number | null): Migration {
  const found = { ...newMigration(epoch === null ? 1 : epoch - 1), state };
  if (state === "handing_over" && epoch !== null) return { ...found, won_epoch: epoch, isUnsure: true };
  const message = "The gateway that moved the stream is gone.";
  return hasEnded(found) ? found : { ...found, state: "failed", error: { code: "cancelled", message } };
}

export function hasEnded({ state }: Pick<Migration, "state">): boolean {
  return state === "finished" || state === "dropped" || state === "failed";
}

export function dueIn(migration: Migration): MigrationDue {
  const { state, isLoaded, isReady, won_epoch, seen_epoch, isUnsure, isFenced, waitsToGoOn } = migration;
  if (hasEnded(migration)) return { kind: "end" };
  if (!isLoaded && (state === "planned" || state === "loading")) return { kind: "load" };
  if (state !== "handing_over" || won_epoch === null) {
    return isReady ? { kind: "claim", seen_epoch } : { kind: "copy", epoch: seen_epoch + 1 };
  }
  if (isUnsure) return { kind: "ask", epoch: seen_epoch + 1 };
  if (!waitsToGoOn) return { kind: "hand_over", epoch: won_epoch };
  // The epoch of the hand-over is the destination's: the source needs a higher one.
  if (won_epoch === seen_epoch + 1) return { kind: "claim", seen_epoch: won_epoch };
  return isFenced ? { kind: "go_on", epoch: won_epoch } : { kind: "fence", epoch: won_epoch };
}

/** The next state. An input that nothing asked for is a defect and throws a plain error. */
export function advance(migration: Migration, input: MigrationInput): Migration {
  if (hasEnded(migration)) throw new Error(`"${input.type}" cannot follow "${migration.state}"`);
  switch (input.type) {
    case "loaded":
      return { ...migration, state: "copying", isLoaded: true };
    case "round":
      return { ...migration, progress: input.progress };
    case "ready":
      return { ...migration, progress: input.progress, isReady: true };
    case "ended":
      return { ...migration, state: "dropped" };
    case "given_up":
      // Once the epoch is won it is the destination's in every row: the source goes on in one of its own.
      if (migration.won_epoch === null || migration.waitsToGoOn) return fail(migration, input.error);
      return sendBack(migration, input.error);
    case "won":
      return { ...migration, state: "handing_over", won_epoch: input.epoch };
    case "lost":
      return fail(migration, input.error);
    case "handed_over":
      return takeResponse(migration, input.response);
    case "silent":
      return { ...migration, isUnsure: true, error: input.error };
    case "found":
      if (input.isThere === true) return { ...migration, state: "finished", isUnsure: false, error: null };
      // One that cannot be asked may have it, but nobody has read it there, and nobody will.
      return sendBack(migration, migration.error ?? notThere);
    case "fenced":
      return { ...migration, isFenced: true };
    case "went_on":
      return fail(migration, migration.error ?? notThere);
  }
}

const notThere: WireError = {
  code: "worker_unavailable",
  message: "The destination did not take the stream over.",
};

function takeResponse(migration: Migration, { outcome, error }: HandOverResponse): Migration {
  switch (outcome) {
    case "moved":
      return { ...migration, state: "finished" };
    case "ended":
      return { ...migration, state: "dropped" };
    case "refused":
      return sendBack(migration, error ?? notThere);
    case "unknown":
      return { ...migration, isUnsure: true, error: error ?? notThere };
  }
}

function sendBack(migration: Migration, error: WireError): Migration {
  return { ...migration, isUnsure: false, waitsToGoOn: true, error };
}

function fail(migration: Migration, error: WireError): Migration {
  return { ...migration, state: "failed", error };
}
