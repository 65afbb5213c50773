/**
 * Who waits for an instance at this gateway, in what order, since when and until when; and which devices starved models
 * have laid claim to. Bounded in all and per model. Holds no clock: whoever asks brings the time.
 */
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, ModelId, WorkerId } from "../../schema/ids.ts";

/** When a client that found the queue full should come back. */
const retryAfter_ms = 1_000;

export interface WaitQueueOptions {
  /** Requests in all. */
  readonly capacity: number;
  /** Requests of one model: a flood for one leaves room for the others. */
  readonly per_model: number;
  /** How long others may keep a device busy before they make room, and how long a swap lasts at least. */
  readonly starvation_ms: number;
}

/** All times on the monotonic clock. */
export interface Waiting {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly arrived_ms: number;
  readonly deadline_ms: number;
}

/** What a request waits for, as the last decision said. */
export interface WaitState {
  readonly state: "queued" | "loading";
  readonly reason: string;
  /** When it is expected to be served; null for unknown. */
  readonly due_ms: number | null;
}

export interface DeviceAt {
  readonly worker_id: WorkerId;
  readonly device_id: string;
}

export class WaitQueue {
  readonly #options: WaitQueueOptions;
  readonly #byModel = new Map<ModelId, Set<Ticket>>();
  readonly #claims = new Map<string, ModelId>();
  readonly #claimers = new Map<Ticket, string>();
  readonly #lastSwap_ms = new Map<string, number>();
  #count = 0;

  constructor(options: WaitQueueOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#count;
  }

  /** Devices that a model shall have next, by `deviceKey`. Live. */
  get claims(): ReadonlyMap<string, ModelId> {
    return this.#claims;
  }

  /** Takes a place or throws `overloaded`. */
  enter(request: Waiting): Ticket {
    const ofModel = this.#byModel.get(request.model_id) ?? new Set<Ticket>();
    if (this.#count >= this.#options.capacity) throw full(`${this.#count} requests are waiting already.`);
    if (ofModel.size >= this.#options.per_model) {
      throw full(`${ofModel.size} requests are waiting for '${request.model_id}' already.`);
    }
    const ticket = new Ticket(request, this);
    this.#byModel.set(request.model_id, ofModel.add(ticket));
    this.#count += 1;
    return ticket;
  }

  /** Those that wait, the longest first; requests that have just come and will not wait are left out. */
  waiting(): readonly Ticket[] {
    return [...this.#byModel.values()]
      .flatMap((tickets) => [...tickets])
      .filter((ticket) => ticket.state !== null)
      .sort((a, b) => a.request.arrived_ms - b.request.arrived_ms);
  }

  /** Place among those that wait for the same model, 1 for the next. */
  positionOf(ticket: Ticket): number {
    let position = 1;
    for (const other of this.#byModel.get(ticket.request.model_id) ?? []) {
      if (other === ticket) break;
      if (other.state !== null) position += 1;
    }
    return position;
  }

  /** When the request may lay claim to the device: after the bound, and not before the last swap has lasted as long. */
  mayClaimFrom(ticket: Ticket, device: DeviceAt): number {
    const swapped_ms = this.#lastSwap_ms.get(deviceKey(device)) ?? Number.NEGATIVE_INFINITY;
    return Math.max(ticket.request.arrived_ms, swapped_ms) + this.#options.starvation_ms;
  }

  /** Others' new requests keep off the device from now on. A model claims one device at a time, a device has one claim. */
  claim(ticket: Ticket, device: DeviceAt): void {
    const { model_id } = ticket.request;
    if (this.#claims.has(deviceKey(device)) || [...this.#claims.values()].includes(model_id)) return;
    this.#claims.set(deviceKey(device), model_id);
    this.#claimers.set(ticket, deviceKey(device));
  }

  /** Called by tickets. The one that laid the claim was served or gave up: either way the claim is over. */
  leave(ticket: Ticket, now_ms: number): void {
    const { model_id } = ticket.request;
    const ofModel = this.#byModel.get(model_id);
    if (ofModel?.delete(ticket) !== true) return;
    this.#count -= 1;
    if (ofModel.size === 0) this.#byModel.delete(model_id);
    const claimed = this.#claimers.get(ticket);
    if (claimed !== undefined) {
      this.#claimers.delete(ticket);
      this.#claims.delete(claimed);
      this.#lastSwap_ms.set(claimed, now_ms);
    }
    // A swap that lies further back than the bound means nothing any more.
    for (const [device, at_ms] of this.#lastSwap_ms) {
      if (now_ms - at_ms > this.#options.starvation_ms) this.#lastSwap_ms.delete(device);
    }
  }
}

/** One request's place in the queue. */
export class Ticket {
  readonly request: Waiting;
  readonly #queue: WaitQueue;
  #state: WaitState | null = null;

  constructor(request: Waiting, queue: WaitQueue) {
    this.request = request;
    this.#queue = queue;
  }

  /** null until it is clear that the request has to wait. */
  get state(): WaitState | null {
    return this.#state;
  }

  get position(): number {
    return this.#queue.positionOf(this);
  }

  note(state: WaitState): void {
    this.#state = state;
  }

  /** The second and later calls do nothing. */
  leave(now_ms: number): void {
    this.#queue.leave(this, now_ms);
  }
}

/** Name of a device for claims. */
export function deviceKey({ worker_id, device_id }: DeviceAt): string {
  return `${worker_id}/${device_id}`;
}

function full(message: string): SllmError {
  return new SllmError("overloaded", message, { retry_after_ms: retryAfter_ms });
}
