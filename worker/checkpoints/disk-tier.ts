/**
 * The disk tier: which complete and valid checkpoints lie in the data folder. A checkpoint is a directory named by
 * its digest with a manifest.json; what has no manifest does not exist yet.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { checkpointFiles } from "../../schema/checkpoint/manifest.ts";
import type { PlacementReport } from "../../schema/cluster/membership.ts";
import { SllmError } from "../../schema/error.ts";
import { type CheckpointDigest, checkpointDigest } from "../../schema/ids.ts";
import type { Log } from "../ports.ts";
import { readCheckpoint, type StoredCheckpoint } from "./import/verify.ts";

export type { StoredCheckpoint } from "./import/verify.ts";

interface CachedCheckpoint {
  /** Changes whenever one of its files does. */
  readonly version: string;
  readonly found: StoredCheckpoint | SllmError;
}

/** Reads the data folder; keeps what it read until the files change. */
export class DiskTier {
  readonly #directory: string;
  readonly #log: Log;
  readonly #checkpoints = new Map<CheckpointDigest, CachedCheckpoint>();
  /** Versions of headers whose digest was found right. */
  readonly #goodHeaders = new Map<CheckpointDigest, string>();

  constructor(options: { readonly directory: string; readonly log: Log }) {
    this.#directory = options.directory;
    this.#log = options.log;
  }

  /** Looks the folder through; cheap when nothing has changed. A missing folder holds no checkpoints. */
  async scan(): Promise<readonly StoredCheckpoint[]> {
    const digests = (await directoryNames(this.#directory)).filter((name) => isDigest(name));
    this.#forgetAllBut(new Set(digests));
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
   * One checkpoint, read anew when one of its files has changed. Errors: `checkpoint_unavailable` when it is not there,
   * `checkpoint_invalid` when manifest or sizes are wrong, `checkpoint_unsupported` for another format, `io_error`.
   */
  async find(digest: CheckpointDigest): Promise<StoredCheckpoint> {
    const entry = await this.#refresh(digest);
    if (entry === null) {
      throw new SllmError("checkpoint_unavailable", `Checkpoint ${digest} is not on this worker's disk.`);
    }
    if (entry instanceof SllmError) throw entry;
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
      const message = `${checkpointFiles.header} differs from the digest in the manifest.`;
      throw new SllmError("checkpoint_invalid", message);
    }
    if (version !== null) this.#goodHeaders.set(checkpoint.digest, version);
  }

  #forgetAllBut(digests: ReadonlySet<CheckpointDigest>): void {
    for (const known of this.#checkpoints.keys()) {
      if (digests.has(known)) continue;
      this.#checkpoints.delete(known);
      this.#goodHeaders.delete(known);
    }
  }

  async #refresh(digest: CheckpointDigest): Promise<StoredCheckpoint | SllmError | null> {
    const directory = path.join(this.#directory, digest);
    const manifestVersion = await fileVersion(path.join(directory, checkpointFiles.manifest));
    if (manifestVersion === null) {
      this.#checkpoints.delete(digest);
      return null;
    }
    const headerVersion = await fileVersion(path.join(directory, checkpointFiles.header));
    const weightsVersion = await fileVersion(path.join(directory, checkpointFiles.weights));
    const version = `${manifestVersion} ${headerVersion} ${weightsVersion}`;
    const cached = this.#checkpoints.get(digest);
    if (cached?.version === version) return cached.found;
    const found = await readOrReason(directory);
    if (found instanceof SllmError) {
      this.#log.warn("checkpoint_ignored", { checkpoint: digest, code: found.code, reason: found.message });
    }
    // A failure of the disk may be over the next time.
    if (!(found instanceof SllmError && found.code === "io_error")) {
      this.#checkpoints.set(digest, { version, found });
    }
    return found;
  }
}

/** The checkpoint, or why it cannot be used. */
async function readOrReason(directory: string): Promise<StoredCheckpoint | SllmError> {
  try {
    return await readCheckpoint(directory);
  } catch (error) {
    if (error instanceof SllmError) return error;
    throw error;
  }
}

function isDigest(name: string): name is CheckpointDigest {
  return checkpointDigest.safeParse(name).success;
}

/** Changes whenever the file does; null when there is none. */
async function fileVersion(file: string): Promise<string | null> {
  try {
    const { ino, size, mtimeMs } = await stat(file);
    return `${ino}:${size}:${mtimeMs}`;
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
