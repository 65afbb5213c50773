/**
 * Finds out whether the store holds the checkpoint already, by reading the source beside the stored weights. So a
 * second conversion writes nothing, and one that meets a damaged copy notices and mends it.
 */
import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { checkpointFiles } from "../../../schema/checkpoint/manifest.ts";
import { checkpointDigest } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { type Conversion, progressOf } from "./conversion.ts";
import { sha256Hex } from "./digest.ts";
import { readCheckpoint, type StoredCheckpoint } from "./verify.ts";
import { type ChunkSink, streamWeights } from "./weights.ts";

export type InStore =
  | { readonly state: "absent" }
  /** A folder with the right name whose bytes are not what its manifest says. */
  | { readonly state: "damaged" }
  | { readonly state: "whole"; readonly checkpoint: StoredCheckpoint };

/** Ends the comparison; never leaves this file. */
class Difference extends Error {
  readonly state: "absent" | "damaged";

  constructor(state: "absent" | "damaged") {
    super(state);
    this.state = state;
  }
}

/** Compares the source of a conversion with the checkpoints of the store that have its header and its size. */
export async function compareWithStore(conversion: Conversion): Promise<InStore> {
  let result: InStore = { state: "absent" };
  for (const candidate of await candidates(conversion)) {
    const state = await compare(conversion, candidate);
    if (state === "whole") return { state, checkpoint: candidate };
    if (state === "damaged") result = { state };
  }
  return result;
}

async function candidates(conversion: Conversion): Promise<StoredCheckpoint[]> {
  const { header, header_sha256, options } = conversion;
  const found: StoredCheckpoint[] = [];
  for (const name of await readdir(options.store_dir)) {
    if (!checkpointDigest.safeParse(name).success) continue;
    const directory = join(options.store_dir, name);
    const size = await stat(join(directory, checkpointFiles.header)).then(
      (s) => s.size,
      () => -1,
    );
    if (size !== header.bytes.length + header.weights_bytes) continue;
    // One that cannot be read is no candidate; publishing replaces it when it stands in the way.
    const checkpoint = await readCheckpoint(directory).catch(() => null);
    if (checkpoint === null) continue;
    const { header: storedHeader, weights } = checkpoint.manifest;
    if (storedHeader.sha256 === header_sha256 && weights.chunk_bytes === limits.chunk_bytes)
      found.push(checkpoint);
  }
  return found;
}

async function compare(conversion: Conversion, stored: StoredCheckpoint): Promise<InStore["state"]> {
  const { header, tools, options } = conversion;
  const weights = await open(stored.weights_path, "r");
  try {
    if (!(await sameHeader(stored, header.bytes.length))) return "damaged";
    await streamWeights({
      placed: header.placed,
      weights_bytes: header.weights_bytes,
      chunk_bytes: limits.chunk_bytes,
      xxh3: tools.xxh3,
      sink: comparingSink(weights, stored),
      on_progress: progressOf(conversion),
      signal: options.signal,
    });
    return "whole";
  } catch (error) {
    if (error instanceof Difference) return error.state;
    throw error;
  } finally {
    await weights.close();
  }
}

async function sameHeader(stored: StoredCheckpoint, bytes: number): Promise<boolean> {
  const file = await open(stored.header_path, "r");
  try {
    const found = new Uint8Array(bytes);
    return (await readFully(file, found, 0)) && sha256Hex(found) === stored.manifest.header.sha256;
  } finally {
    await file.close();
  }
}

/** Compares every chunk with the digest in the manifest, then with the stored bytes. */
function comparingSink(weights: FileHandle, stored: StoredCheckpoint): ChunkSink {
  const free: Uint8Array[] = [];
  return async (index, offset, bytes, entry) => {
    const expected = stored.manifest.weights.chunks[index];
    if (expected?.sha256 !== entry.sha256) throw new Difference("absent");
    const buffer = free.pop() ?? new Uint8Array(limits.chunk_bytes);
    const found = buffer.subarray(0, bytes.length);
    const same = (await readFully(weights, found, offset)) && Buffer.compare(found, bytes) === 0;
    free.push(buffer);
    if (!same || expected.xxh3 !== entry.xxh3) throw new Difference("damaged");
  };
}

async function readFully(file: FileHandle, into: Uint8Array, offset: number): Promise<boolean> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) return false;
    done += bytesRead;
  }
  return true;
}
