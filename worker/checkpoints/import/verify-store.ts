/**
 * Reads the checkpoints of a store and compares every byte with what their manifests say. One checkpoint and one
 * chunk at a time: a running worker on the same disk stays in front, and memory is bounded by a chunk.
 */
import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { type AnyManifest, checkpointFiles } from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { checkpointDigest } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { FileSource } from "./byte-source.ts";
import { checkCancelled } from "./cancelled.ts";
import { sha256Hex } from "./digest.ts";
import { isIncoming } from "./incoming.ts";
import { systemFailure } from "./system-failure.ts";
import { readManifest } from "./verify.ts";

export interface VerifyProgress {
  /** The checkpoint that is being read. */
  readonly digest: string;
  /** Of all weights that are to be read. */
  readonly bytes_done: number;
  readonly bytes_total: number;
}

export interface VerifyOptions {
  readonly store_dir: string;
  /** Checkpoints to read; all of the store if left out. */
  readonly digests?: readonly string[] | undefined;
  /** Compare the SHA-256 of every chunk too, not only the fast digest. */
  readonly strong?: boolean | undefined;
  readonly on_progress?: ((progress: VerifyProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** One place of a checkpoint that is not what it should be. */
export interface Damage {
  readonly file: string;
  /** Byte at which the wrong part begins; null when the file as a whole is wrong. */
  readonly offset: number | null;
  readonly expected: string;
  readonly found: string;
}

export interface VerifiedCheckpoint {
  readonly digest: string;
  /** Bytes of weights that were read and compared. */
  readonly bytes: number;
  /** Empty when it is whole. At most `verify_damages`, from the front. */
  readonly damages: readonly Damage[];
}

export interface VerifiedStore {
  readonly store_dir: string;
  /** In the order of their digests, or in that of the question. */
  readonly checkpoints: readonly VerifiedCheckpoint[];
  /** Temporary folders of conversions: running, or ended half-way and removed by the next one. */
  readonly leftovers: readonly string[];
}

type Xxh3 = (bytes: Uint8Array) => bigint;

/** Damage is part of the result. Errors: `io_error` when the store cannot be listed, `not_found`, `cancelled`. */
export async function verifyStoreWith(xxh3: Xxh3, options: VerifyOptions): Promise<VerifiedStore> {
  const { store_dir } = options;
  const names = await readdir(store_dir).catch((cause: unknown) => {
    throw systemFailure(`Cannot list ${store_dir}`, cause);
  });
  const present = names.filter((name) => checkpointDigest.safeParse(name).success).sort();
  const wanted = [...new Set(options.digests ?? present)];
  for (const digest of wanted) {
    if (present.includes(digest)) continue;
    throw new SllmError("not_found", `The store ${store_dir} has no checkpoint ${digest}.`);
  }
  const bytes_total = await totalWeightsBytes(store_dir, wanted);
  const checkpoints: VerifiedCheckpoint[] = [];
  let bytes_before = 0;
  for (const digest of wanted) {
    const before = bytes_before;
    const onRead = (bytes: number) =>
      options.on_progress?.({ digest, bytes_done: before + bytes, bytes_total });
    const reader = new CheckpointReader(join(store_dir, digest), { xxh3, onRead, ...options });
    const verified = await reader.verify();
    bytes_before += verified.bytes;
    checkpoints.push(verified);
  }
  return { store_dir, checkpoints, leftovers: names.filter(isIncoming).sort() };
}

/** For the progress alone: a file that cannot be seen here is reported when it is read. */
async function totalWeightsBytes(store_dir: string, digests: readonly string[]): Promise<number> {
  let total = 0;
  for (const digest of digests) {
    total += await stat(join(store_dir, digest, checkpointFiles.weights)).then(
      ({ size }) => size,
      () => 0,
    );
  }
  return total;
}

interface ReaderOptions extends Pick<VerifyOptions, "strong" | "signal"> {
  readonly xxh3: Xxh3;
  /** Told the bytes of weights that are done. */
  readonly onRead: (bytes: number) => void;
}

/** Reads one checkpoint and collects what is wrong with it. */
class CheckpointReader {
  readonly #directory: string;
  readonly #options: ReaderOptions;
  readonly #damages: Damage[] = [];

  constructor(directory: string, options: ReaderOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  async verify(): Promise<VerifiedCheckpoint> {
    const digest = basename(this.#directory);
    let bytes = 0;
    const manifest = await this.#manifest(digest);
    if (manifest) {
      await this.#header(manifest);
      bytes = await this.#weights(manifest);
    }
    return { digest, bytes, damages: this.#damages };
  }

  async #manifest(digest: string): Promise<AnyManifest | null> {
    const file = checkpointFiles.manifest;
    try {
      const manifest = await readManifest(this.#directory);
      if (manifest.digest === digest) return manifest;
      this.#report({ file, offset: null, expected: `digest ${digest}`, found: `digest ${manifest.digest}` });
    } catch (error) {
      this.#report({ file, offset: null, expected: "a manifest of this version", found: reasonOf(error) });
    }
    return null;
  }

  async #header({ header, weights }: AnyManifest): Promise<void> {
    const file = checkpointFiles.header;
    await this.#withFile(file, header.bytes + weights.bytes, async (source) => {
      if (source.bytes < header.bytes) return;
      const hash = createHash("sha256");
      const block = new Uint8Array(Math.min(limits.chunk_bytes, header.bytes));
      for (let offset = 0; offset < header.bytes; offset += block.length) {
        checkCancelled(this.#options.signal, "verification");
        const part = block.subarray(0, Math.min(block.length, header.bytes - offset));
        if (!(await this.#read(source, file, offset, part))) return;
        hash.update(part);
      }
      this.#compare(file, 0, `SHA-256 ${header.sha256}`, `SHA-256 ${hash.digest("hex")}`);
    });
  }

  /** The bytes that were read. */
  async #weights({ weights }: AnyManifest): Promise<number> {
    const file = checkpointFiles.weights;
    const { xxh3, strong, signal, onRead } = this.#options;
    let bytes = 0;
    await this.#withFile(file, weights.bytes, async (source) => {
      const buffer = new Uint8Array(Math.min(weights.chunk_bytes, weights.bytes));
      for (const [i, expected] of weights.chunks.entries()) {
        checkCancelled(signal, "verification");
        const offset = i * weights.chunk_bytes;
        const chunk = buffer.subarray(0, Math.min(buffer.length, weights.bytes - offset));
        // What a short file lacks is reported by its size.
        if (offset + chunk.length > source.bytes) return;
        if (await this.#read(source, file, offset, chunk)) {
          const fast = xxh3(chunk).toString(16).padStart(16, "0");
          this.#compare(file, offset, `XXH3 ${expected.xxh3}`, `XXH3 ${fast}`);
          if (strong) {
            this.#compare(file, offset, `SHA-256 ${expected.sha256}`, `SHA-256 ${sha256Hex(chunk)}`);
          }
        }
        bytes += chunk.length;
        onRead(bytes);
      }
    });
    return bytes;
  }

  /** Opens the file, compares its size and reads it; a file that cannot be opened is damage. */
  async #withFile(name: string, bytes: number, read: (source: FileSource) => Promise<void>): Promise<void> {
    let source: FileSource;
    try {
      source = await FileSource.open(join(this.#directory, name));
    } catch (error) {
      this.#report({ file: name, offset: null, expected: `${bytes} bytes`, found: reasonOf(error) });
      return;
    }
    try {
      this.#compare(name, null, `${bytes} bytes`, `${source.bytes} bytes`);
      await read(source);
    } finally {
      await source.close();
    }
  }

  /** False when the bytes cannot be read, which is reported. */
  async #read(source: FileSource, file: string, offset: number, into: Uint8Array): Promise<boolean> {
    try {
      await source.read(offset, into);
      return true;
    } catch (error) {
      this.#report({ file, offset, expected: `${into.length} readable bytes`, found: reasonOf(error) });
      return false;
    }
  }

  #compare(file: string, offset: number | null, expected: string, found: string): void {
    if (found !== expected) this.#report({ file, offset, expected, found });
  }

  #report(damage: Damage): void {
    if (this.#damages.length < limits.verify_damages) this.#damages.push(damage);
  }
}

/** Expected failures in their own words; anything else is a defect. */
function reasonOf(error: unknown): string {
  if (error instanceof SllmError) return error.message;
  throw error;
}
