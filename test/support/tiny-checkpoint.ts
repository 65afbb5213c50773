/** A valid checkpoint of a few pages with made-up weights: for whatever looks at files and digests, not at the model. */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import { digestOf } from "../../worker/checkpoints/import/digest.ts";

const pageBytes = 4096;

export interface TinyCheckpoint {
  readonly digest: string;
  readonly directory: string;
  readonly manifest: Manifest;
  readonly header_path: string;
  readonly weights_path: string;
}

export interface TinyOptions {
  readonly pages?: number;
  /** Makes different contents, so different digests. */
  readonly fill?: number;
  /** Fast digest of a chunk; the native library's in tests that load, anything elsewhere. */
  readonly xxh3?: (chunk: Uint8Array) => bigint;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** The manifest and the bytes that belong to it. */
export function tinyContent(options: TinyOptions = {}): {
  manifest: Manifest;
  header: Uint8Array;
  weights: Uint8Array;
} {
  const { pages = 2, fill = 1, xxh3 = () => 0n } = options;
  const header = new TextEncoder().encode(`made-up header ${fill}`);
  const weights = new Uint8Array(pages * pageBytes).map((_, i) => (i * 31 + fill) & 0xff);
  const chunks = Array.from({ length: pages }, (_, i) => {
    const chunk = weights.slice(i * pageBytes, (i + 1) * pageBytes);
    return { sha256: sha256(chunk), xxh3: xxh3(chunk).toString(16).padStart(16, "0") };
  });
  const content = {
    header: { bytes: header.length, sha256: sha256(header) },
    weights: { bytes: weights.length, chunk_bytes: pageBytes, chunks },
  };
  const manifest: Manifest = {
    version: 1,
    digest: digestOf(content),
    model: {
      architecture: "llama",
      name: "tiny",
      parameters: 1,
      layers: 1,
      embedding: 16,
      vocabulary_tokens: 256,
      context_tokens: 2048,
      quantisation: "F16",
      kv_bytes_per_token: 64,
      chat_template_sha256: null,
    },
    ...content,
    tensors: [{ name: "token_embd.weight", dtype: "F16", shape: [16], layer: -1, offset: 0, bytes: 32 }],
  };
  return { manifest, header, weights };
}

/** Writes a checkpoint into a store folder. */
export function writeTinyCheckpoint(store: string, options: TinyOptions = {}): TinyCheckpoint {
  const { manifest, header, weights } = tinyContent(options);
  const directory = path.join(store, manifest.digest);
  mkdirSync(directory, { recursive: true });
  const padded = new Uint8Array(header.length + weights.length);
  padded.set(header);
  const header_path = path.join(directory, "header.gguf");
  const weights_path = path.join(directory, "weights.bin");
  writeFileSync(header_path, padded);
  writeFileSync(weights_path, weights);
  writeFileSync(path.join(directory, "manifest.json"), JSON.stringify(manifest));
  return { digest: manifest.digest, directory, manifest, header_path, weights_path };
}
