/**
 * Writes weights.bin past the page cache where the file system allows it: copying gigabytes through the cache costs
 * more processor time than digesting them, and nothing reads them back soon.
 */
import { constants, type FileHandle, open } from "node:fs/promises";

export class WeightsFile {
  readonly #buffered: FileHandle;
  readonly #direct: FileHandle | null;
  #refusesDirect = false;

  private constructor(buffered: FileHandle, direct: FileHandle | null) {
    this.#buffered = buffered;
    this.#direct = direct;
  }

  /** Makes a new file; the caller closes it. */
  static async create(path: string): Promise<WeightsFile> {
    const buffered = await open(path, "wx");
    // File systems without O_DIRECT refuse to open with it; the buffered handle does then.
    const direct = await open(path, constants.O_WRONLY | constants.O_DIRECT).catch(() => null);
    return new WeightsFile(buffered, direct);
  }

  /** Writes whole blocks of the disk (limits.file_align_bytes) at an offset of them. Calls may overlap. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    if (this.#direct !== null && !this.#refusesDirect) {
      try {
        await writeFully(this.#direct, bytes, offset);
        return;
      } catch (error) {
        // The disk wants another alignment than this memory or this offset has.
        if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
        this.#refusesDirect = true;
      }
    }
    await writeFully(this.#buffered, bytes, offset);
  }

  /** Everything written is on the disk when this returns. */
  async sync(): Promise<void> {
    await this.#buffered.sync();
  }

  async close(): Promise<void> {
    await this.#direct?.close();
    await this.#buffered.close();
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}
