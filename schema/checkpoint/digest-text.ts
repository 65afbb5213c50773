/** The canonical text whose SHA-256 is a checkpoint's digest (README.md, "Digest"). Pure: whoever checks hashes it. */
import { checkpointVersion, type Manifest } from "./manifest.ts";

/** What of a manifest the digest covers; everything else follows from it or says where it came from. */
export interface DigestedContent {
  readonly header: Manifest["header"];
  readonly weights: {
    readonly bytes: number;
    readonly chunk_bytes: number;
    readonly chunks: readonly { readonly sha256: string }[];
  };
}

export function digestText({ header, weights }: DigestedContent): string {
  const lines = [
    `sllm-checkpoint ${checkpointVersion}`,
    `header ${header.bytes} ${header.sha256}`,
    `weights ${weights.bytes} ${weights.chunk_bytes}`,
    ...weights.chunks.map((chunk) => `chunk ${chunk.sha256}`),
  ];
  return `${lines.join("\n")}\n`;
}
