/** Digests of checkpoints and of their parts, by the host's own SHA-256. */
import { createHash } from "node:crypto";
import { type DigestedContent, digestText } from "../../../schema/checkpoint/digest-text.ts";

/** The digest that names a checkpoint with this content. */
export function digestOf(content: DigestedContent): string {
  return sha256Hex(digestText(content));
}

export function sha256Hex(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
