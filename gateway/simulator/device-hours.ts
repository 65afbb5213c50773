/** How long devices were taken: from the first instance on one until none is left. */
import type { InstanceRow } from "../../schema/db/tables.ts";

const hour_ms = 3_600_000;

export class DeviceHours {
  readonly #instances = new Map<string, Set<string>>();
  readonly #since_ms = new Map<string, number>();
  #sum_ms = 0;

  note({ instance_id, worker_id, device_id, state }: InstanceRow, now_ms: number): void {
    const device = `${worker_id}/${device_id}`;
    const there = this.#instances.get(device) ?? new Set<string>();
    this.#instances.set(device, there);
    const before = there.size;
    if (state === "gone" || state === "failed" || state === "parked") there.delete(instance_id);
    else there.add(instance_id);
    if (before === 0 && there.size > 0) this.#since_ms.set(device, now_ms);
    if (before > 0 && there.size === 0) this.#sum_ms += now_ms - (this.#since_ms.get(device) ?? now_ms);
  }

  /** In hours, with what is still taken. */
  until(now_ms: number): number {
    let sum_ms = this.#sum_ms;
    for (const [device, there] of this.#instances) {
      if (there.size > 0) sum_ms += Math.max(0, now_ms - (this.#since_ms.get(device) ?? now_ms));
    }
    return sum_ms / hour_ms;
  }
}
