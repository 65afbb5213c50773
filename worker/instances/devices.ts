/**
 * The devices of this worker and what of their memory is booked. A model lives on one of them, or on several whose ids
 * are joined by "+": then its layers, and what it books, are shared out in proportion to their memory.
 */
import type { DeviceReport } from "../../schema/cluster/membership.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId } from "../../schema/ids.ts";
import { DeviceMemory } from "./device-memory.ts";

export interface DeviceFacts extends DeviceReport {
  /** The engine library's name of a discrete device, e.g. CUDA0; null for the processors. */
  readonly engine_name: string | null;
}

/** Where an instance lives. */
export interface DevicePlacement {
  /** As the load command of an engine names it; empty for the processors. */
  readonly engine_devices: string;
  /** How many take a part of the weights each. */
  readonly devices: number;
  /** Whether its weights are the pages of the host copy: else it needs the copy only until it is ready. */
  readonly computesOnHostCopy: boolean;
  /** Whether engines there may hold a repacked copy of the weights. */
  readonly repacks: boolean;
  /** Books memory, all of it or nothing. Errors: `insufficient_memory`. */
  book(instance_id: InstanceId, bytes: number): void;
  /** Changes what is booked. Errors: `insufficient_memory`, and then nothing has changed. */
  rebook(instance_id: InstanceId, bytes: number): void;
  /** Gives memory back; does nothing when there is none. */
  release(instance_id: InstanceId): void;
}

interface Device extends DeviceFacts {
  readonly memory: DeviceMemory;
}

export class Devices {
  readonly #devices: readonly Device[];

  constructor(facts: readonly DeviceFacts[]) {
    this.#devices = facts.map((one) => ({ ...one, memory: new DeviceMemory(one.memory_bytes) }));
  }

  /** What the gateway is told. */
  reports(): DeviceReport[] {
    return this.#devices.map(({ device_id, kind, memory_bytes, repacks }) => ({
      ...{ device_id, kind, memory_bytes },
      ...(repacks === true ? { repacks } : {}),
    }));
  }

  /** Bytes of a device that nobody has booked. Errors: `not_found`. */
  freeBytes(device_id: string): number {
    return this.#find(device_id).memory.free_bytes;
  }

  /** The placement of an id, e.g. "cuda0" or "cuda0+cuda1". Errors: `not_found`. */
  place(device_id: string): DevicePlacement {
    const ids = device_id.split("+");
    const devices = ids.map((id) => this.#find(id));
    const joinable = devices.length === 1 || devices.every((device) => device.engine_name !== null);
    if (!joinable || new Set(ids).size < ids.length) throw notHere(device_id);
    return placement(devices);
  }

  #find(device_id: string): Device {
    const device = this.#devices.find((one) => one.device_id === device_id);
    if (!device) throw notHere(device_id);
    return device;
  }
}

/** Why an instance there is not parked: its memory would stay in use. */
export function onDiscreteDevice(): SllmError {
  return new SllmError("state_conflict", "An instance on a discrete device cannot be parked.");
}

function notHere(device_id: string): SllmError {
  return new SllmError("not_found", `There is no device ${device_id} on this worker.`, {
    param: "device_id",
  });
}

function placement(devices: readonly Device[]): DevicePlacement {
  const total = devices.reduce((sum, { memory }) => sum + memory.capacity_bytes, 0);
  const share = (bytes: number, { memory }: Device) => Math.ceil((bytes * memory.capacity_bytes) / total);
  /** Carries out on all, or on none. */
  const onAll = (change: (device: Device) => void, undo: (device: Device) => void) => {
    for (const [done, device] of devices.entries()) {
      try {
        change(device);
      } catch (error) {
        for (const changed of devices.slice(0, done)) undo(changed);
        throw error;
      }
    }
  };
  const booked = new Map<InstanceId, number>();
  return {
    engine_devices: devices
      .flatMap(({ engine_name, memory_bytes }) => {
        if (engine_name === null) return [];
        return devices.length === 1 ? [engine_name] : [`${engine_name}=${memory_bytes}`];
      })
      .join(","),
    devices: devices.length,
    computesOnHostCopy: devices.every((device) => device.engine_name === null),
    repacks: devices.some((device) => device.repacks === true),
    book(instance_id, bytes) {
      onAll(
        (device) => device.memory.book(instance_id, share(bytes, device)),
        (device) => device.memory.release(instance_id),
      );
      booked.set(instance_id, bytes);
    },
    rebook(instance_id, bytes) {
      const before = booked.get(instance_id) ?? 0;
      onAll(
        (device) => device.memory.rebook(instance_id, share(bytes, device)),
        (device) => device.memory.rebook(instance_id, share(before, device)),
      );
      booked.set(instance_id, bytes);
    },
    release(instance_id) {
      for (const device of devices) device.memory.release(instance_id);
      booked.delete(instance_id);
    },
  };
}
