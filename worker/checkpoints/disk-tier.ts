/**
 * The disk tier: which complete and valid checkpoints lie in the data folder. A checkpoint is a directory named by
 * its digest with a manifest.json; what has no manifest does not exist yet.
 */
import { createHash } from "node:crypto";
import { constants, createReadStream, type Stats, statSync } from "node:fs";
import { access, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { checkpointFiles } from "../../schema/checkpoint/manifest.ts";
import type { PlacementReport, StoreProblem } from "../../schema/cluster/membership.ts";
import { SllmError } from "../../schema/error.ts";
import { type CheckpointDigest, checkpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Log } from "../ports.ts";
import { isMissing, systemFailure } from "./import/system-failure.ts";
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
  readonly #isEvicting: (digest: CheckpointDigest) => boolean;
  readonly #checkpoints = new Map<CheckpointDigest, CachedCheckpoint>();
  /** Versions of headers whose digest was found right. */
  readonly #goodHeaders = new Map<CheckpointDigest, string>();
  #problems: StoreProblem[] = [];

  constructor(options: {
    readonly directory: string;
    readonly log: Log;
    /** Whether a checkpoint is about to go; none is, if left out. */
    readonly isEvicting?: (digest: CheckpointDigest) => boolean;
  }) {
    this.#directory = options.directory;
    this.#isEvicting = options.isEvicting ?? (() => false);
    this.#log = options.log;
  }

  /**
   * Looks the folder through; cheap when nothing has changed. What cannot be used, the folder itself included, is left
   * out and is a problem from then on.
   */
  async scan(): Promise<readonly StoredCheckpoint[]> {
    const problems: StoreProblem[] = [];
    const note = (checkpoint: CheckpointDigest | null, { code, message }: SllmError) =>
      problems.push({ checkpoint, error: { code, message } });
    const names = await directoryNames(this.#directory);
    if (names instanceof SllmError) note(null, names);
    const digests = names instanceof SllmError ? [] : names.filter((name) => isDigest(name));
    this.#forgetAllBut(new Set(digests));
    const found: StoredCheckpoint[] = [];
    for (const digest of digests) {
      const entry = await this.#refresh(digest);
      if (entry instanceof SllmError) note(digest, entry);
      else if (entry !== null) found.push(entry);
    }
    this.#problems = problems.slice(0, limits.store_problems);
    return found;
  }

  /** What the last scan found that cannot be used. */
  problems(): StoreProblem[] {
    return this.#problems;
  }

  /** Reports for the gateway of what the last scan of the folder finds. */
  async placements(): Promise<PlacementReport[]> {
    return (await this.scan()).map(({ digest, manifest: { header, weights } }) => ({
      checkpoint: digest,
      tier: "disk",
      state: this.#isEvicting(digest) ? "evicting" : "present",
      bytes_present: header.bytes + weights.bytes,
    }));
  }

  /**
   * One checkpoint, read anew when one of its files has changed. Errors: `checkpoint_unavailable` when it is not there,
   * `store_missing` when nothing is,
   * `checkpoint_invalid` when manifest or sizes are wrong, `checkpoint_unsupported` for another format,
   * `permission_denied`, `io_error`.
   */
  async find(digest: CheckpointDigest): Promise<StoredCheckpoint> {
    const entry = await this.#refresh(digest);
    if (entry === null) {
      const names = await directoryNames(this.#directory);
      if (names instanceof SllmError) throw names;
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
    const version = await filesVersion(directory);
    if (version === null) {
      this.#checkpoints.delete(digest);
      return null;
    }
    if (version instanceof SllmError) return version;
    const cached = this.#checkpoints.get(digest);
    if (cached?.version === version) return cached.found;
    const found = await readOrReason(directory);
    if (found instanceof SllmError && !passesByItself(found)) {
      this.#log.warn("checkpoint_ignored", { checkpoint: digest, code: found.code, reason: found.message });
    }
    if (!(found instanceof SllmError && passesByItself(found))) {
      this.#checkpoints.set(digest, { version, found });
    }
    return found;
  }
}

/** What may be over the next time, without any change to the files: a failing disk, rights of a folder. */
function passesByItself({ code }: SllmError): boolean {
  return code === "io_error" || code === "permission_denied";
}

/** The checkpoint, or why it cannot be used. Weights that this process may not read are found here, not at a load. */
async function readOrReason(directory: string): Promise<StoredCheckpoint | SllmError> {
  try {
    const checkpoint = await readCheckpoint(directory);
    for (const file of [checkpoint.header_path, checkpoint.weights_path]) {
      await access(file, constants.R_OK).catch((cause: unknown) => {
        throw systemFailure(`Cannot read ${path.basename(file)} of checkpoint ${checkpoint.digest}`, cause);
      });
    }
    return checkpoint;
  } catch (error) {
    if (error instanceof SllmError) return error;
    throw error;
  }
}

function isDigest(name: string): name is CheckpointDigest {
  return checkpointDigest.safeParse(name).success;
}

/** Changes whenever bytes, name or rights of a file do; null when it cannot be seen. Blocks for one system call. */
export function fileVersionNow(file: string): string | null {
  try {
    return versionOf(statSync(file));
  } catch {
    // Not there or not to be seen: both are another version than any that was read.
    return null;
  }
}

function versionOf({ ino, size, mtimeMs, ctimeMs }: Stats): string {
  return `${ino}:${size}:${mtimeMs}:${ctimeMs}`;
}

/** Changes whenever one of the checkpoint's files does; null without a manifest. */
async function filesVersion(directory: string): Promise<string | null | SllmError> {
  try {
    const manifest = await fileVersion(path.join(directory, checkpointFiles.manifest));
    if (manifest === null) return null;
    const header = await fileVersion(path.join(directory, checkpointFiles.header));
    const weights = await fileVersion(path.join(directory, checkpointFiles.weights));
    return `${manifest} ${header} ${weights}`;
  } catch (error) {
    if (error instanceof SllmError) return error;
    throw error;
  }
}

/** Inode, size and times; changes whenever bytes, name or rights of the file do. null when there is none. */
async function fileVersion(file: string): Promise<string | null> {
  try {
    return versionOf(await stat(file));
  } catch (error) {
    if (isMissing(error)) return null;
    throw systemFailure(`Cannot look at ${path.basename(file)}`, error);
  }
}

async function directoryNames(directory: string): Promise<string[] | SllmError> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (!isMissing(error)) return systemFailure("Cannot list the checkpoints of this worker", error);
    const message = "The folder 'checkpoints' of this worker's data folder is not there.";
    return new SllmError("store_missing", message, { cause: error });
  }
}

async function sha256Prefix(file: string, bytes: number): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file, { end: bytes - 1, highWaterMark: 1024 * 1024 })) {
      hash.update(chunk);
    }
  } catch (error) {
    throw systemFailure(`Cannot read ${path.basename(file)}`, error);
  }
  return hash.digest("hex");
}
