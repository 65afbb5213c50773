/** The digest that names a checkpoint: SHA-256 of a short canonical text about its content (the specification has it). */
import { createHash } from "node:crypto";
import { checkpointVersion, type Manifest } from "../../../schema/checkpoint/manifest.ts";

/** What of a manifest the digest covers; everything else follows from it or says where it came from. */
export interface DigestedContent {
  readonly header: Manifest["header"];
  readonly weights: {
    readonly bytes: number;
    readonly chunk_bytes: number;
    readonly chunks: readonly { readonly sha256: string }[];
  };
}

export function digestOf({ header, weights }: DigestedContent): string {
  const lines = [
    `sllm-checkpoint ${checkpointVersion}`,
    `header ${header.bytes} ${header.sha256}`,
    `weights ${weights.bytes} ${weights.chunk_bytes}`,
    ...weights.chunks.map((chunk) => `chunk ${chunk.sha256}`),
  ];
  return sha256Hex(`${lines.join("\n")}\n`);
}

export function sha256Hex(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
