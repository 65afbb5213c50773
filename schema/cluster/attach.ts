/** Reading a generation that runs or ran at a worker, and ending it: what any gateway may do that knows where it is. */
import { z } from "zod";
import { gatewayId, generationId, instanceId } from "../ids.ts";
import {
  epoch,
  generationEvent,
  generationHop,
  generationPlace,
  generationSettings,
  isLastEvent,
  resumedOutput,
} from "./generate.ts";

const index = z.coerce.number().int().min(0);

/**
 * GET /v1/generations/{id}/events: everything from a token on, then what follows as it comes, to any number of readers.
 * With an epoch the reader is its owner from now on: a lower one than the worker has seen is refused
 * (`stale_generation`), and so is everything of lower epochs afterwards. Without, it only reads. Errors: `not_found`;
 * `generation_lost` where `from` lies in the middle of an event, beyond the end, or before what is kept.
 */
export const attachQuery = z.strictObject({
  /** Index of the first token that the reader wants. */
  from: index,
  epoch: z.coerce.number().pipe(epoch).optional(),
  owner: gatewayId.optional(),
});
export type AttachQuery = z.infer<typeof attachQuery>;

/** Everything that is needed to go on with a generation elsewhere, but its output. */
export const generationRecord = z.strictObject({
  generation_id: generationId,
  epoch,
  owner: gatewayId.nullable(),
  instance_id: instanceId,
  settings: generationSettings,
  /** The prompt's tokens; null before the engine has told them. */
  prompt: resumedOutput.shape.prompt.nullable(),
  /** Of this run too, which is the last one. */
  hops: z.array(generationHop).min(1),
  /** First token that the log still has. */
  first_index: z.number().int().min(0),
  /** Whether a tool call is among what it told: a reader that begins after it must end as one that had it. */
  has_calls: z.boolean().optional(),
});
export type GenerationRecord = z.infer<typeof generationRecord>;

/** The stream of a reader that attaches: `record` once, then events as the first reader gets them. */
export const attachEvent = z.union([
  z.strictObject({ type: z.literal("record"), record: generationRecord }),
  generationEvent,
]);
export type AttachEvent = z.infer<typeof attachEvent>;

/** True for the event that nothing follows. */
export function isLastAttachEvent(event: AttachEvent): boolean {
  return event.type !== "record" && isLastEvent(event);
}

/**
 * DELETE /v1/generations/{id}. With an epoch the worker refuses everything below it from now on, whether it has the
 * generation or not, so that a late message cannot begin it, and ends what runs with a lower one; a lower epoch than it
 * has seen is refused itself.
 */
export const cancelQuery = z.strictObject({
  epoch: z.coerce.number().pipe(epoch).optional(),
  /** 1: only if nobody reads it but one. */
  unless_read: z.literal("1").optional(),
});
export type CancelQuery = z.infer<typeof cancelQuery>;

/** `cancelled` is false when the worker does not know it, it had ended, or others read it. */
export const cancelResponse = z.strictObject({
  generation_id: generationId,
  cancelled: z.boolean(),
  /** Where it has gone; to be asked there. */
  moved: generationPlace.optional(),
});
export type CancelResponse = z.infer<typeof cancelResponse>;
