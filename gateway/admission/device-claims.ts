/** Which devices starved models have laid claim to, and how long a swap lasts at least. Holds no clock. */
import type { ModelId, WorkerId } from "../../schema/ids.ts";

export interface DeviceAt {
  readonly worker_id: WorkerId;
  readonly device_id: string;
}

/** Name of a device for claims. */
export function deviceKey({ worker_id, device_id }: DeviceAt): string {
  return `${worker_id}/${device_id}`;
}

/** Claimers are told apart by identity. */
export class DeviceClaims<Claimer> {
  /** How long others may keep a device busy before they make room, and how long a swap lasts at least. */
  readonly #starvation_ms: number;
  readonly #claims = new Map<string, ModelId>();
  readonly #claimers = new Map<Claimer, string>();
  readonly #lastSwap_ms = new Map<string, number>();

  constructor(starvation_ms: number) {
    this.#starvation_ms = starvation_ms;
  }

  /** Devices that a model shall have next, by `deviceKey`. Live. */
  get all(): ReadonlyMap<string, ModelId> {
    return this.#claims;
  }

  /** When somebody who came then may lay claim to the device: after the bound, and when the last swap has lasted it. */
  mayClaimFrom(arrived_ms: number, device: DeviceAt): number {
    const swapped_ms = this.#lastSwap_ms.get(deviceKey(device)) ?? Number.NEGATIVE_INFINITY;
    return Math.max(arrived_ms, swapped_ms) + this.#starvation_ms;
  }

  /** A model claims one device at a time, a device has one claim. */
  claim(claimer: Claimer, model_id: ModelId, device: DeviceAt): void {
    if (this.#claims.has(deviceKey(device)) || [...this.#claims.values()].includes(model_id)) return;
    this.#claims.set(deviceKey(device), model_id);
    this.#claimers.set(claimer, deviceKey(device));
  }

  /** The claimer was served or gave up: either way its claim is over. */
  leave(claimer: Claimer, now_ms: number): void {
    const claimed = this.#claimers.get(claimer);
    if (claimed !== undefined) {
      this.#claimers.delete(claimer);
      this.#claims.delete(claimed);
      this.#lastSwap_ms.set(claimed, now_ms);
    }
    // A swap that lies further back than the bound means nothing any more.
    for (const [device, at_ms] of this.#lastSwap_ms) {
      if (now_ms - at_ms > this.#starvation_ms) this.#lastSwap_ms.delete(device);
    }
  }
}
