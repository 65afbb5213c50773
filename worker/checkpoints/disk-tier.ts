/**
 * The disk tier: which complete and valid checkpoints lie in the data folder. A checkpoint is a directory named by
 * its digest with a manifest.json; what has no manifest does not exist yet.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { checkpointFiles, type Manifest, manifest } from "../../schema/checkpoint/manifest.ts";
import type { PlacementReport } from "../../schema/cluster/membership.ts";
import { fromZodError, SllmError } from "../../schema/error.ts";
import { type CheckpointDigest, checkpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Log } from "../ports.ts";

export interface StoredCheckpoint {
  readonly digest: CheckpointDigest;
  readonly directory: string;
  readonly manifest: Manifest;
  readonly header_path: string;
  readonly weights_path: string;
}

interface CachedManifest {
  /** Changes whenever the manifest's file does. */
  readonly version: string;
  readonly found: StoredCheckpoint | SllmError;
}

/** Reads the data folder; keeps parsed manifests until their files change. */
export class DiskTier {
  readonly #directory: string;
  readonly #log: Log;
  readonly #manifests = new Map<CheckpointDigest, CachedManifest>();
  /** Versions of headers whose digest was found right. */
  readonly #goodHeaders = new Map<CheckpointDigest, string>();

  constructor(options: { readonly directory: string; readonly log: Log }) {
    this.#directory = options.directory;
    this.#log = options.log;
  }

  /** Looks the folder through; cheap when nothing has changed. A missing folder holds no checkpoints. */
  async scan(): Promise<readonly StoredCheckpoint[]> {
    const digests = (await directoryNames(this.#directory)).filter((name) => isDigest(name));
    for (const known of this.#manifests.keys()) if (!digests.includes(known)) this.#manifests.delete(known);
    const found: StoredCheckpoint[] = [];
    for (const digest of digests) {
      const entry = await this.#refresh(digest);
      if (entry !== null && !(entry instanceof SllmError)) found.push(entry);
    }
    return found;
  }

  /** Reports for the gateway of what the last scan of the folder finds. */
  async placements(): Promise<PlacementReport[]> {
    return (await this.scan()).map(({ digest, manifest: { header, weights } }) => ({
      checkpoint: digest,
      tier: "disk",
      state: "present",
      bytes_present: header.bytes + weights.bytes,
    }));
  }

  /**
   * One checkpoint, its files' sizes checked anew. Errors: `checkpoint_unavailable` when it is not there,
   * `checkpoint_invalid` when manifest or sizes are wrong, `io_error`.
   */
  async find(digest: CheckpointDigest): Promise<StoredCheckpoint> {
    const entry = await this.#refresh(digest);
    if (entry === null) {
      throw new SllmError("checkpoint_unavailable", `Checkpoint ${digest} is not on this worker's disk.`);
    }
    if (entry instanceof SllmError) throw entry;
    await checkSizes(entry);
    return entry;
  }

  /**
   * Compares header.gguf with its digest, so that no engine parses bytes nobody vouched for. A header that was good
   * is read again only when its file changed. Errors: `checkpoint_invalid`, `io_error`.
   */
  async verifyHeader(checkpoint: StoredCheckpoint): Promise<void> {
    const version = await fileVersion(checkpoint.header_path);
    if (version !== null && this.#goodHeaders.get(checkpoint.digest) === version) return;
    const { bytes, sha256 } = checkpoint.manifest.header;
    const found = await sha256Prefix(checkpoint.header_path, bytes);
    if (found !== sha256) {
      throw invalid(checkpoint.digest, `${checkpointFiles.header} differs from the digest in its manifest`);
    }
    if (version !== null) this.#goodHeaders.set(checkpoint.digest, version);
  }

  async #refresh(digest: CheckpointDigest): Promise<StoredCheckpoint | SllmError | null> {
    const file = path.join(this.#directory, digest, checkpointFiles.manifest);
    const version = await fileVersion(file);
    if (version === null) {
      this.#manifests.delete(digest);
      return null;
    }
    const cached = this.#manifests.get(digest);
    if (cached?.version === version) return cached.found;
    const found = await this.#read(digest);
    if (found instanceof SllmError) {
      this.#log.warn("checkpoint_ignored", { checkpoint: digest, code: found.code, reason: found.message });
    }
    this.#manifests.set(digest, { version, found });
    return found;
  }

  async #read(digest: CheckpointDigest): Promise<StoredCheckpoint | SllmError> {
    const directory = path.join(this.#directory, digest);
    try {
      const parsed = await readManifest(digest, path.join(directory, checkpointFiles.manifest));
      const checkpoint = {
        digest,
        directory,
        manifest: parsed,
        header_path: path.join(directory, checkpointFiles.header),
        weights_path: path.join(directory, checkpointFiles.weights),
      };
      await checkSizes(checkpoint);
      return checkpoint;
    } catch (error) {
      if (error instanceof SllmError) return error;
      throw error;
    }
  }
}

function isDigest(name: string): name is CheckpointDigest {
  return checkpointDigest.safeParse(name).success;
}

function invalid(digest: CheckpointDigest, problem: string, cause?: unknown): SllmError {
  return new SllmError("checkpoint_invalid", `Checkpoint ${digest}: ${problem}.`, { cause });
}

async function readManifest(digest: CheckpointDigest, file: string): Promise<Manifest> {
  const { size } = await stat(file);
  if (size > limits.manifest_bytes) {
    throw invalid(
      digest,
      `${checkpointFiles.manifest} has ${size} bytes, ${limits.manifest_bytes} are allowed`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, "utf8"));
  } catch (cause) {
    throw invalid(digest, `${checkpointFiles.manifest} is not JSON`, cause);
  }
  const parsed = manifest.safeParse(value);
  if (!parsed.success) {
    throw invalid(digest, `${checkpointFiles.manifest}: ${fromZodError(parsed.error).message}`, parsed.error);
  }
  if (parsed.data.digest !== digest) throw invalid(digest, "its manifest names another digest");
  return parsed.data;
}

async function checkSizes(checkpoint: StoredCheckpoint): Promise<void> {
  const { header, weights } = checkpoint.manifest;
  const headerBytes = await fileBytes(checkpoint.header_path);
  if (headerBytes < header.bytes) {
    throw invalid(
      checkpoint.digest,
      `${checkpointFiles.header} has ${headerBytes} bytes, at least ${header.bytes} are expected`,
    );
  }
  const weightsBytes = await fileBytes(checkpoint.weights_path);
  if (weightsBytes !== weights.bytes) {
    throw invalid(
      checkpoint.digest,
      `${checkpointFiles.weights} has ${weightsBytes} bytes, ${weights.bytes} are expected`,
    );
  }
}

/** Size of a file; 0 for one that is missing, so that a size check names it. */
async function fileBytes(file: string): Promise<number> {
  return (await statOrNull(file))?.size ?? 0;
}

async function fileVersion(file: string): Promise<string | null> {
  const found = await statOrNull(file);
  return found && `${found.ino}:${found.size}:${found.mtimeMs}`;
}

async function statOrNull(file: string): Promise<{ ino: number; size: number; mtimeMs: number } | null> {
  try {
    return await stat(file);
  } catch (error) {
    if (isMissing(error)) return null;
    throw ioError(error);
  }
}

async function directoryNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissing(error)) return [];
    throw ioError(error);
  }
}

async function sha256Prefix(file: string, bytes: number): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file, { end: bytes - 1, highWaterMark: 1024 * 1024 })) {
      hash.update(chunk);
    }
  } catch (error) {
    throw ioError(error);
  }
  return hash.digest("hex");
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

/** The system's message holds a path of ours; the code of the failure is enough for others. */
function ioError(cause: unknown): SllmError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown";
  return new SllmError("io_error", `Reading a checkpoint failed (${code}).`, { cause });
}
