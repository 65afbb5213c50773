/** Streams that clients read through this gateway, as the move of one tells them what comes. */
import type { GenerationPlace } from "../../../schema/cluster/generate.ts";
import type { GenerationId } from "../../../schema/ids.ts";

export interface LiveStreams {
  /** The epoch is won: its source is about to hand it over to this place. Nothing where nobody reads it here. */
  handOver(
    generation_id: GenerationId,
    to: Pick<GenerationPlace, "epoch" | "worker_id" | "instance_id">,
  ): void;
  /** The hand-over came to nothing: it goes on where it was. */
  handOverEnded(generation_id: GenerationId): void;
}
