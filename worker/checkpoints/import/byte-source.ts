/**
 * Random access to the bytes of a source file. The importer reads through this interface only, so that a source
 * need not be a local file.
 */
import { constants, type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { SllmError } from "../../../schema/error.ts";
import { systemFailure } from "./system-failure.ts";

export interface ByteSource {
  /** What people call it: shown in messages, never opened. */
  readonly name: string;
  readonly bytes: number;
  /** Fills `into` from `offset` on. Fails when the source ends before it is full. Calls may overlap. */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/**
 * A local file, read through the page cache: a file that was just downloaded is still there, and on others reading
 * ahead keeps up with the digests. The caller closes it; reads through a closed source fail as `io_error`.
 */
export class FileSource implements ByteSource {
  readonly name: string;
  readonly bytes: number;
  /** Last change in milliseconds since 1970, to tell versions of a file apart. */
  readonly modified_ms: number;
  readonly #handle: FileHandle;

  private constructor(name: string, bytes: number, modifiedMs: number, handle: FileHandle) {
    this.name = name;
    this.bytes = bytes;
    this.modified_ms = modifiedMs;
    this.#handle = handle;
  }

  /** Opens a regular file; anything else is refused, and a pipe does not block. Errors: `io_error`, `permission_denied`. */
  static async open(path: string): Promise<FileSource> {
    const name = basename(path);
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
      throw systemFailure(`Cannot open ${name}`, cause);
    });
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new SllmError("io_error", `${name} is not a regular file.`);
      return new FileSource(name, stat.size, stat.mtimeMs, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await this.#handle
        .read(into, done, into.length - done, offset + done)
        .catch((cause: unknown) => {
          throw systemFailure(`Cannot read ${this.name} at byte ${offset + done}`, cause);
        });
      if (bytesRead === 0) {
        const message = `${this.name}: the file ends at byte ${offset + done}, inside data that was there before.`;
        throw new SllmError(done + offset < this.bytes ? "file_changed" : "checkpoint_invalid", message);
      }
      done += bytesRead;
    }
  }

  /** Errors: `file_changed` when size or time of change are not what they were when it was opened. */
  async checkUnchanged(): Promise<void> {
    const { size, mtimeMs } = await this.#handle.stat();
    if (size === this.bytes && mtimeMs === this.modified_ms) return;
    const message = `${this.name} changed while it was read: it had ${this.bytes} bytes and has ${size} now.`;
    throw new SllmError("file_changed", message);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
