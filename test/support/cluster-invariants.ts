/** What must hold in every cluster at every time, live or simulated. Each check answers with what is wrong. */
import type { DeviceRow, InstanceRow } from "../../schema/db/tables.ts";
import { type InstanceState, instanceMoves } from "../../schema/vocab.ts";

type BookedDevice = Pick<DeviceRow, "worker_id" | "device_id" | "memory_bytes" | "reserved_bytes">;
type Booking = Pick<InstanceRow, "worker_id" | "device_id" | "state" | "memory_bytes">;

/** What is booked is what instances hold, and never more than the device has. */
export function findWrongBooks(devices: readonly BookedDevice[], instances: readonly Booking[]): string[] {
  const held = new Map<string, number>();
  for (const { worker_id, device_id, state, memory_bytes } of instances) {
    if (state === "gone" || state === "failed") continue;
    const device = `${worker_id}/${device_id}`;
    held.set(device, (held.get(device) ?? 0) + memory_bytes);
  }
  return devices.flatMap(({ worker_id, device_id, memory_bytes, reserved_bytes }) => {
    const device = `${worker_id}/${device_id}`;
    const sum = held.get(device) ?? 0;
    if (reserved_bytes > memory_bytes)
      return [`${device}: ${reserved_bytes} of ${memory_bytes} bytes are booked`];
    return sum === reserved_bytes
      ? []
      : [`${device}: ${reserved_bytes} bytes are booked, instances hold ${sum}`];
  });
}

/** An instance's moves one after the other: each is legal, and what has ended stays ended. */
export class InstanceHistory {
  readonly #states = new Map<string, InstanceState>();
  readonly wrong: string[] = [];

  note({ instance_id, state }: Pick<InstanceRow, "instance_id" | "state">): void {
    const before = this.#states.get(instance_id);
    const legal: readonly string[] = before === undefined ? ["loading"] : instanceMoves[before];
    if (!legal.includes(state))
      this.wrong.push(`${instance_id} went from ${before ?? "nothing"} to ${state}`);
    this.#states.set(instance_id, state);
  }
}
