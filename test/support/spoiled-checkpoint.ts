/**
 * Checkpoints that are whole by every digest and yet not what the engine library takes: copies of good ones with another
 * header, under the digest that such content has. No conversion lets them through; they are put into a store by hand.
 */
import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { AnyManifest } from "../../schema/checkpoint/manifest.ts";
import { digestOf } from "../../worker/checkpoints/import/digest.ts";

interface Stored<M extends AnyManifest> {
  readonly directory: string;
  readonly manifest: M;
}

/** Copies a checkpoint within its store, its header changed in place. */
export function spoilHeader<M extends AnyManifest>(
  good: Stored<M>,
  change: (header: Buffer) => void,
): Stored<M> {
  const header = readFileSync(path.join(good.directory, "header.gguf"));
  change(header);
  const { bytes } = good.manifest.header;
  const sha256 = createHash("sha256").update(header.subarray(0, bytes)).digest("hex");
  const content = { header: { bytes, sha256 }, weights: good.manifest.weights };
  const manifest = { ...good.manifest, ...content, digest: digestOf(content) };
  const directory = path.join(path.dirname(good.directory), manifest.digest);
  cpSync(good.directory, directory, { recursive: true });
  writeFileSync(path.join(directory, "header.gguf"), header);
  writeFileSync(path.join(directory, "manifest.json"), JSON.stringify(manifest));
  return { directory, manifest };
}

/** Where the value of a metadata pair begins: the number of its type. */
export function valueAt(header: Buffer, key: string): number {
  const at = header.indexOf(key);
  if (at < 0) throw new Error(`the header has no ${key}`);
  return at + Buffer.byteLength(key);
}

/** Numbers of value types in GGUF files, of four bytes both. */
export const wholeNumber = 4;
export const floatingPoint = 6;
