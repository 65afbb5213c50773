/**
 * Files that parts of a KV cache pass through between a worker and its engines. They lie in memory where the system has a
 * folder for that, are only their user's, and go with what used them, or with the next start of the worker.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { WorkerId } from "../../schema/ids.ts";

export interface KvFile {
  readonly path: string;
  read(): Promise<Uint8Array>;
  write(bytes: Uint8Array): Promise<void>;
  remove(): Promise<void>;
}

export interface KvFiles {
  /** A new one, empty. */
  create(): Promise<KvFile>;
}

const memoryFolder = "/dev/shm";

export class SharedMemoryFiles implements KvFiles {
  readonly #folder: string;
  #made: Promise<void> | null = null;
  #last = 0;
  #open = 0;

  constructor(worker_id: WorkerId) {
    const parent = existsSync(memoryFolder) ? memoryFolder : tmpdir();
    this.#folder = path.join(parent, `sllm-kv-${worker_id}`);
  }

  async create(): Promise<KvFile> {
    // What an earlier process of this worker has left behind goes first.
    this.#made ??= rm(this.#folder, { recursive: true, force: true });
    await this.#made;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const file = path.join(this.#folder, String(++this.#last));
    await writeFile(file, "", { mode: 0o600 });
    this.#open += 1;
    return {
      path: file,
      read: () => readFile(file),
      write: (bytes) => writeFile(file, bytes),
      remove: () => this.#remove(file),
    };
  }

  async #remove(file: string): Promise<void> {
    await rm(file, { force: true });
    this.#open -= 1;
    // Another one may be made in it at this very moment: then it stays.
    if (this.#open === 0) await rmdir(this.#folder).catch(() => undefined);
  }
}
