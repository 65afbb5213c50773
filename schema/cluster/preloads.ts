/** Reading a checkpoint into a worker's host memory before an instance wants it. */
import { z } from "zod";
import { checkpointDigest } from "../ids.ts";
import { protocolVersion } from "./protocol.ts";

/** POST /v1/preloads: takes memory and disk only as far as nobody else needs them. Answers when the read has begun. */
export const preloadRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  checkpoint: checkpointDigest,
});
export type PreloadRequest = z.infer<typeof preloadRequest>;

/**
 * `present`: it is there. `reading`: it comes. `no_room`: something would have to be evicted for it. `busy`: the disk is
 * read for others.
 */
export const preloadOutcomes = ["present", "reading", "no_room", "busy"] as const;
export const preloadResponse = z.strictObject({
  checkpoint: checkpointDigest,
  outcome: z.enum(preloadOutcomes),
});
export type PreloadOutcome = (typeof preloadOutcomes)[number];
export type PreloadResponse = z.infer<typeof preloadResponse>;
