/** Books the memory of one device. The worker is the final authority on its own memory: what does not fit is refused. */
import { SllmError } from "../../schema/error.ts";
import type { InstanceId } from "../../schema/ids.ts";

function tooLarge(bytes: number, capacity_bytes: number): SllmError {
  const message = `The instance needs ${bytes} bytes; this worker gives models ${capacity_bytes} in all.`;
  return new SllmError("model_too_large", message);
}

const mebibyte = 1024 * 1024;

export class DeviceMemory {
  readonly capacity_bytes: number;
  readonly #booked = new Map<InstanceId, number>();

  constructor(capacity_bytes: number) {
    this.capacity_bytes = capacity_bytes;
  }

  /** What no instance has booked. */
  get free_bytes(): number {
    let booked = 0;
    for (const bytes of this.#booked.values()) booked += bytes;
    return this.capacity_bytes - booked;
  }

  /** Books memory for an instance that has none yet. Errors: `model_too_large`, `insufficient_memory`. */
  book(instance_id: InstanceId, bytes: number): void {
    if (this.#booked.has(instance_id)) throw new Error(`${instance_id} has booked memory already`);
    if (bytes > this.free_bytes) {
      if (bytes > this.capacity_bytes) throw tooLarge(bytes, this.capacity_bytes);
      const inMebibytes = (value: number) => `${Math.ceil(value / mebibyte)} MiB`;
      throw new SllmError(
        "insufficient_memory",
        `The instance needs ${inMebibytes(bytes)}; ${inMebibytes(Math.max(0, this.free_bytes))} of ` +
          `${inMebibytes(this.capacity_bytes)} are free.`,
      );
    }
    this.#booked.set(instance_id, bytes);
  }

  /** Changes what an instance has booked. Errors: `insufficient_memory`, and then nothing has changed. */
  rebook(instance_id: InstanceId, bytes: number): void {
    const before = this.#booked.get(instance_id);
    if (before === undefined) throw new Error(`${instance_id} has booked no memory`);
    this.#booked.delete(instance_id);
    try {
      this.book(instance_id, bytes);
    } catch (error) {
      this.#booked.set(instance_id, before);
      throw error;
    }
  }

  /** Gives an instance's memory back; does nothing when it has none. */
  release(instance_id: InstanceId): void {
    this.#booked.delete(instance_id);
  }
}
