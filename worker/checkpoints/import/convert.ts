/**
 * Converts GGUF files into checkpoints of a store: reads the header, asks the engine for its order, streams the
 * tensors into place and publishes the folder at once. On any failure the store is as it was before.
 */
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  type AdapterManifest,
  type AnyManifest,
  type ChunkEntry,
  checkpointFiles,
  checkpointVersion,
  type Origin,
} from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { checkCancelled } from "./cancelled.ts";
import { adapterKind, type CheckpointKind, layersOf, modelKind } from "./checkpoint-kinds.ts";
import {
  type Conversion,
  type ConvertOptions,
  type ConvertResult,
  type ConvertTools,
  progressOf,
} from "./conversion.ts";
import { digestOf, sha256Hex } from "./digest.ts";
import { tensorEntries } from "./facts.ts";
import { type OpenedGguf, openGguf } from "./gguf-splits.ts";
import { type MergedHeader, mergeHeader } from "./gguf-writer.ts";
import { createIncoming, markOf, publish, sweepIncoming } from "./incoming.ts";
import { originOf } from "./origin.ts";
import { sweepOwned } from "./owned-files.ts";
import { compareWithStore } from "./present.ts";
import { reserveRoom } from "./reserve.ts";
import { systemFailure } from "./system-failure.ts";
import { readCheckpoint } from "./verify.ts";
import { streamWeights } from "./weights.ts";
import { WeightsFile } from "./weights-file.ts";

/**
 * Converts a model with the given tools; convertGguf in ../import.ts is the entry with the real ones.
 * Errors: `checkpoint_invalid`, `checkpoint_unsupported`, `native_unavailable`, `insufficient_memory`, `disk_full`,
 * `store_read_only`, `permission_denied`, `file_changed`, `io_error`, `cancelled`.
 */
export async function convertWith(tools: ConvertTools, options: ConvertOptions): Promise<ConvertResult> {
  return await convertKind(modelKind, tools, options);
}

/** The same of a LoRA adapter. */
export async function convertAdapterWith(
  tools: ConvertTools,
  options: ConvertOptions,
): Promise<ConvertResult<AdapterManifest>> {
  return await convertKind(adapterKind, tools, options);
}

async function convertKind<M extends AnyManifest>(
  kind: CheckpointKind<M>,
  tools: ConvertTools,
  options: ConvertOptions,
): Promise<ConvertResult<M>> {
  try {
    const file = await openGguf(options.source);
    try {
      return await convertOpened(kind, tools, options, file);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw asOperational(error);
  }
}

/** System errors get the code that says what to change; anything else that is not ours is a defect and passes as it is. */
function asOperational(error: unknown): unknown {
  if (error instanceof SllmError || !(error instanceof Error) || !("syscall" in error)) return error;
  return systemFailure(`Cannot ${String(error.syscall)} in the checkpoint store`, error);
}

async function convertOpened<M extends AnyManifest>(
  kind: CheckpointKind<M>,
  tools: ConvertTools,
  options: ConvertOptions,
  file: OpenedGguf,
): Promise<ConvertResult<M>> {
  const facts = kind.facts(file);
  checkCancelled(options.signal);
  await sweepIncoming(options.store_dir);
  const folder = await createIncoming(options.store_dir);
  await sweepOwned(options.store_dir);
  try {
    const order = await kind.order(file, folder, tools.plan, options.signal);
    const header = mergeHeader(file.pairs, order);
    const header_sha256 = sha256Hex(header.bytes);
    const conversion = { options, tools, header, header_sha256, facts };
    const stored = await compareWithStore(conversion);
    if (stored.state === "whole") {
      const { digest, directory, manifest } = stored.checkpoint;
      // One header is never that of both kinds.
      if (!kind.is(manifest)) throw new Error(`the checkpoint ${digest} is of another kind than its header`);
      return { digest, directory, manifest, already_present: true };
    }
    const { store_dir, disk_bytes } = options;
    const room = await reserveRoom({
      owner: markOf(folder),
      store_dir,
      bytes: header.bytes.length + header.weights_bytes,
      disk_bytes,
    });
    try {
      const origin = originOf(options.source, file.sources, new Date().toISOString());
      return await writeCheckpoint(kind, conversion, folder, file, origin, stored.state === "damaged");
    } finally {
      await room.release();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function writeCheckpoint<M extends AnyManifest>(
  kind: CheckpointKind<M>,
  conversion: Conversion,
  folder: string,
  { sources }: OpenedGguf,
  origin: Origin,
  damaged: boolean,
): Promise<ConvertResult<M>> {
  const { options, header } = conversion;
  await rm(join(folder, "draft.gguf"), { force: true });
  await writeHeader(join(folder, checkpointFiles.header), header);
  const chunks = await writeWeights(conversion, join(folder, checkpointFiles.weights));
  for (const source of sources) await source.checkUnchanged();
  const manifest = kind.parse(manifestOf(conversion, chunks));
  await writeSynced(join(folder, checkpointFiles.origin), `${JSON.stringify(origin, null, 2)}\n`);
  await writeSynced(join(folder, checkpointFiles.manifest), `${JSON.stringify(manifest)}\n`);
  checkCancelled(options.signal);
  const already_present = !(await publishOnce(folder, options.store_dir, manifest.digest, damaged));
  const directory = join(options.store_dir, manifest.digest);
  return { digest: manifest.digest, directory, manifest, already_present };
}

/** A whole checkpoint that another conversion put there meanwhile stays; what is damaged is replaced. */
async function publishOnce(folder: string, storeDir: string, digest: string, damaged: boolean) {
  if (await publish(folder, storeDir, digest, damaged)) return true;
  const whole = await readCheckpoint(join(storeDir, digest)).then(
    () => true,
    () => false,
  );
  return whole ? false : await publish(folder, storeDir, digest, true);
}

async function writeHeader(path: string, header: MergedHeader): Promise<void> {
  await writeSynced(path, header.bytes, header.bytes.length + header.weights_bytes);
}

/** Writes a new file and brings it to the disk; `size` beyond the data leaves a hole. */
async function writeSynced(path: string, data: Uint8Array | string, size?: number): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(data);
    if (size !== undefined) await file.truncate(size);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writeWeights(conversion: Conversion, path: string): Promise<ChunkEntry[]> {
  const { options, tools, header } = conversion;
  const file = await WeightsFile.create(path);
  try {
    const chunks = await streamWeights({
      placed: header.placed,
      weights_bytes: header.weights_bytes,
      chunk_bytes: limits.chunk_bytes,
      xxh3: tools.xxh3,
      sink: (_index, offset, bytes) => file.write(bytes, offset),
      on_progress: progressOf(conversion),
      signal: options.signal,
    });
    await file.sync();
    return chunks;
  } finally {
    await file.close();
  }
}

function manifestOf({ header, header_sha256, facts }: Conversion, chunks: ChunkEntry[]): AnyManifest {
  const content = {
    header: { bytes: header.bytes.length, sha256: header_sha256 },
    weights: { bytes: header.weights_bytes, chunk_bytes: limits.chunk_bytes, chunks },
  };
  const layers = layersOf(
    facts,
    header.placed.map(({ tensor }) => tensor),
  );
  const tensors = tensorEntries(header.placed, layers);
  return { version: checkpointVersion, digest: digestOf(content), ...facts, ...content, tensors };
}
