/**
 * Moving a generation from worker to worker. A gateway tells the source where it shall go; the source sends it there in
 * rounds while it goes on; when little is missing the gateway, which has won the next epoch for it, has it handed over.
 */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, gatewayId, generationId, instanceId, workerId } from "../ids.ts";
import { limits } from "../limits.ts";
import {
  cached_tokens,
  epoch,
  generateRequest,
  generationHistory,
  resumedOutput,
  tokensEvent,
} from "./generate.ts";
import { arrivingKv } from "./kv.ts";
import { protocolVersion } from "./protocol.ts";

/** GET /v1/generations: those that run at the worker. */
export const runningGeneration = z.strictObject({
  generation_id: generationId,
  instance_id: instanceId,
  epoch,
  owner: gatewayId.nullable(),
  /** null before the engine has told them: it cannot be moved yet. */
  prompt_tokens: z.number().int().min(0).nullable(),
  completion_tokens: z.number().int().min(0),
  /** Checkpoint of the adapter that answers: it can only go where that is. */
  adapter: checkpointDigest.optional(),
  /** It is being sent elsewhere. */
  is_moving: z.boolean(),
});
export type RunningGeneration = z.infer<typeof runningGeneration>;
export const runningGenerations = z.strictObject({ data: z.array(runningGeneration) });

/** POST /v1/drain: no new work from now on; the worker ends when what runs has left or finished, or its time is up. */
export const drainResponse = z.strictObject({ generations: z.number().int().min(0) });
export type DrainResponse = z.infer<typeof drainResponse>;

/** Where a generation shall go. `incarnation` names the worker's process, so that no other one takes it in. */
export const moveDestination = z.strictObject({
  worker_id: workerId,
  url: z.url(),
  incarnation: z.string().regex(/^[0-9a-f]{16}$/),
  instance_id: instanceId,
});
export type MoveDestination = z.infer<typeof moveDestination>;

/**
 * POST /v1/generations/{id}/move: send it there in rounds, until the reader of this stream leaves or it is handed over.
 * Nothing changes for its readers. Errors: `not_found`, `state_conflict` when it is being moved already or its engine
 * has not begun it.
 */
export const moveRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  to: moveDestination,
  /** That it will have there: above the one it has. */
  epoch,
  /** It is ready to be handed over when at most so many tokens are missing there. */
  gap_tokens: z.number().int().min(1).max(limits.move_gap_tokens),
  /** More rounds than this are not made to get there. */
  rounds: z.number().int().min(1).max(limits.move_rounds),
  /** Send the KV cache itself instead of having it computed, where both engines can. */
  with_kv: z.boolean().optional(),
});
export type MoveRequest = z.infer<typeof moveRequest>;

const moveProgress = {
  rounds: z.number().int().min(0),
  /** Of prompt and output that the destination has computed or been given. */
  tokens: z.number().int().min(0),
  /** Of the KV cache that were sent. */
  bytes: z.number().int().min(0),
  /** Tokens that the source has made since. */
  gap_tokens: z.number().int().min(0),
};

/** The stream: `kv` once, perhaps, `round` after each, `ready` once, perhaps; then exactly one of the last three. */
export const moveEvent = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("round"),
    ...moveProgress,
    /** Of this round: tokens that were computed for it, and how long the destination took. */
    round_tokens: z.number().int().min(0),
    round_ms: z.number().min(0),
  }),
  /** The KV cache was sent, of so many tokens, in so long. */
  z.strictObject({
    type: z.literal("kv"),
    bytes: z.number().int().min(0),
    kv_tokens: z.number().int().min(0),
    kv_ms: z.number().min(0),
  }),
  /** It can be handed over; until then it is kept that close. */
  z.strictObject({ type: z.literal("ready"), ...moveProgress }),
  z.strictObject({ type: z.literal("handed_over") }),
  /** The generation has ended where it is. */
  z.strictObject({ type: z.literal("ended") }),
  /** The move is over, and the generation goes on where it is. */
  z.strictObject({ type: z.literal("error"), error: wireError }),
]);
export type MoveEvent = z.infer<typeof moveEvent>;

/** True for the event that nothing follows. */
export function isLastMoveEvent(event: MoveEvent): boolean {
  return event.type !== "kv" && event.type !== "round" && event.type !== "ready";
}

/** POST /v1/generations/{id}/hand-over: draw no more tokens, and let the destination go on. */
export const handOverRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  /** As the move was asked for; the gateway has won it since. */
  epoch,
  owner: gatewayId.nullable(),
});
export type HandOverRequest = z.infer<typeof handOverRequest>;

/**
 * `moved`: it runs there. `ended`: it had ended here. `refused`: the destination does not have it, and it goes on here.
 * `unknown`: the destination does not answer; it stands still here until somebody knows.
 */
export const handOverResponse = z.strictObject({
  outcome: z.enum(["moved", "ended", "refused", "unknown"]),
  /** Output tokens at the hand-over. */
  completion_tokens: z.number().int().min(0),
  /** Tokens that were sent with the hand-over itself. */
  gap_tokens: z.number().int().min(0),
  /** From the last token here until the destination had them all. */
  handed_over_ms: z.number().min(0),
  error: wireError.nullable(),
});
export type HandOverResponse = z.infer<typeof handOverResponse>;

/**
 * POST /v1/generations/{id}/go-on: a generation that was to be handed over goes on here, in this epoch, which its owner
 * has won after the destination was refused any lower one. Errors: `not_found`, `stale_generation`.
 */
export const goOnRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  epoch,
  owner: gatewayId.nullable(),
});
export type GoOnRequest = z.infer<typeof goOnRequest>;

/**
 * POST /v1/arrivals, by the source: take a generation in, held. Its engine computes prompt and output and draws nothing.
 * Answers when the engine has it. Errors: `stale_generation`, `state_conflict`, `not_found` for the instance, or what
 * the engine refuses it for.
 */
export const arrivalRequest = generateRequest.extend({
  resume: resumedOutput,
  history: generationHistory,
  /** Of the model's instance there: what was computed with another is not the same. */
  checkpoint: checkpointDigest,
  /** Where it takes them, nothing is computed before they are there. */
  kv: arrivingKv.optional(),
  /** Of the prompt, as the source found them in its KV cache: what the usage says. */
  cached_tokens,
});
export type ArrivalRequest = z.infer<typeof arrivalRequest>;

/** POST /v1/arrivals/{id}/rounds: more output. Answers when all that is there is computed, or after `wait_ms`. */
export const arrivalRound = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  epoch,
  /** Consecutive; may begin with events that were sent before. */
  told: z.array(tokensEvent),
  wait_ms: z.number().int().min(0).max(limits.arrival_wait_ms),
});
export type ArrivalRound = z.infer<typeof arrivalRound>;

export const arrivalProgress = z.strictObject({
  /** Output tokens that are there. */
  completion_tokens: z.number().int().min(0),
  /** Output tokens up to which all is computed, the last one aside; null before the prompt is. */
  computed_tokens: z.number().int().min(0).nullable(),
  /** Of prompt and output, found computed when it came; left out: none. */
  cached_tokens,
});
export type ArrivalProgress = z.infer<typeof arrivalProgress>;

/**
 * POST /v1/arrivals/{id}/go: that was all, go on from here. Saying it again changes nothing and succeeds. Errors:
 * `not_found`, `stale_generation`, `invalid_request` when tokens are missing.
 */
export const arrivalGo = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  epoch,
  owner: gatewayId.nullable(),
  told: z.array(tokensEvent),
});
export type ArrivalGo = z.infer<typeof arrivalGo>;

/** Also of DELETE /v1/arrivals/{id}?epoch=, which lets a held generation go; false when it was not there. */
export const arrivalResponse = z.strictObject({
  generation_id: generationId,
  arrived: z.boolean(),
  /** Whether it waits for rows of the KV cache. */
  takes_kv: z.boolean().optional(),
});
export type ArrivalResponse = z.infer<typeof arrivalResponse>;
