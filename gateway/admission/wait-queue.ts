/**
 * Who waits for an instance at this gateway, in what order, since when and until when. Bounded in all, per model and per
 * tenant. Only the first of each model's line looks for an instance; when it has one, or leaves, the next does.
 */
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, ModelId } from "../../schema/ids.ts";
import type { Priority } from "../../schema/vocab.ts";
import type { Clock } from "../ports.ts";
import { type DeviceAt, DeviceClaims } from "./device-claims.ts";
import { compareInLine, FairTags } from "./fair-order.ts";

/** When a client that found the queue full should come back. */
const retryAfter_ms = 1_000;

export interface WaitQueueOptions {
  /** Requests in all. */
  readonly capacity: number;
  /** Requests of one model: a flood for one leaves room for the others. */
  readonly per_model: number;
  /** Requests of one tenant: a flood by one leaves room for the others. */
  readonly per_tenant: number;
  /** How long others may keep a device busy before they make room, and how long a request waits for a higher priority. */
  readonly starvation_ms: number;
  readonly clock: Pick<Clock, "monotonicMs">;
}

/** All times on the monotonic clock. */
export interface Waiting {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  /** Name of the API key it came with. */
  readonly tenant: string;
  readonly priority: Priority;
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

interface Line {
  readonly tags: FairTags;
  readonly tickets: Set<Ticket>;
}

export class WaitQueue {
  readonly claims: DeviceClaims<Ticket>;
  readonly #options: WaitQueueOptions;
  readonly #lines = new Map<ModelId, Line>();
  readonly #byTenant = new Map<string, number>();
  #count = 0;
  #entered = 0;

  constructor(options: WaitQueueOptions) {
    this.#options = options;
    this.claims = new DeviceClaims(options.starvation_ms);
  }

  get count(): number {
    return this.#count;
  }

  /** Takes a place; throws `overloaded`, or `too_many_waiting` where it is the tenant that has too many. */
  enter(request: Waiting): Ticket {
    const { capacity, per_model, per_tenant } = this.#options;
    const { model_id, tenant } = request;
    const line = this.#lines.get(model_id) ?? { tags: new FairTags(), tickets: new Set<Ticket>() };
    if (this.#count >= capacity) throw full("overloaded", `${this.#count} requests are waiting already.`);
    if (line.tickets.size >= per_model) {
      throw full("overloaded", `${line.tickets.size} requests are waiting for '${model_id}' already.`);
    }
    const own = this.#byTenant.get(tenant) ?? 0;
    if (own >= per_tenant) throw full("too_many_waiting", `${own} requests of '${tenant}' wait already.`);
    this.#entered += 1;
    const ticket = new Ticket(request, line.tags.next(tenant), this.#entered, this);
    this.#add(line, ticket);
    return ticket;
  }

  #add(line: Line, ticket: Ticket): void {
    const { model_id, tenant } = ticket.request;
    this.#lines.set(model_id, line);
    line.tickets.add(ticket);
    this.#byTenant.set(tenant, (this.#byTenant.get(tenant) ?? 0) + 1);
    this.#count += 1;
  }

  /** Those that wait, the longest first; requests that have just come and will not wait are left out. */
  waiting(): readonly Ticket[] {
    return [...this.#lines.values()]
      .flatMap(({ tickets }) => [...tickets])
      .filter((ticket) => ticket.state !== null)
      .sort((a, b) => a.request.arrived_ms - b.request.arrived_ms);
  }

  /** Requests of the model that stand in its line: they wait and have no instance. */
  waitingFor(model_id: ModelId): number {
    let count = 0;
    for (const ticket of this.#lines.get(model_id)?.tickets ?? []) if (ticket.isInLine) count += 1;
    return count;
  }

  /** Place among those that wait for the same model, 1 for the next. */
  positionOf(ticket: Ticket): number {
    return 1 + this.#before(ticket, (other) => other.state !== null);
  }

  /** Requests in the line of the model that go before this one, whether it stands there itself or not. */
  aheadOf(ticket: Ticket): number {
    return this.#before(ticket, (other) => other.isInLine);
  }

  #before(ticket: Ticket, counts: (other: Ticket) => boolean): number {
    const now_ms = this.#options.clock.monotonicMs();
    let before = 0;
    for (const other of this.#lines.get(ticket.request.model_id)?.tickets ?? []) {
      if (other !== ticket && counts(other) && this.#compare(other, ticket, now_ms) < 0) before += 1;
    }
    return before;
  }

  #compare(a: Ticket, b: Ticket, now_ms: number): number {
    return compareInLine(a, b, now_ms, this.#options.starvation_ms);
  }

  /**
   * Stands in line; resolves when it is this ticket's turn to look for an instance. Who then looks in vain waits again.
   * One that had left comes back to its old place: its attempt failed.
   */
  turn(ticket: Ticket): Promise<void> {
    const line = this.#lines.get(ticket.request.model_id) ?? { tags: new FairTags(), tickets: new Set() };
    if (!line.tickets.has(ticket)) this.#add(line, ticket);
    return ticket.standInLine();
  }

  /** Something has changed for the model, or for all: the first in line looks again. */
  changed(model_id?: ModelId): void {
    if (model_id === undefined) for (const line of this.#lines.values()) this.#wakeFirst(line);
    else this.#wakeFirst(this.#lines.get(model_id));
  }

  #wakeFirst(line: Line | undefined): void {
    const now_ms = this.#options.clock.monotonicMs();
    let first: Ticket | null = null;
    for (const ticket of line?.tickets ?? []) {
      if (ticket.isInLine && (first === null || this.#compare(ticket, first, now_ms) < 0)) first = ticket;
    }
    first?.wake();
  }

  /** Called by tickets that have an instance or will have it: the next one's turn. */
  steppedOut(ticket: Ticket): void {
    const line = this.#lines.get(ticket.request.model_id);
    line?.tags.served(ticket.tag);
    this.#wakeFirst(line);
  }

  /** Called by tickets: served or given up. */
  leave(ticket: Ticket, now_ms: number): void {
    const { model_id, tenant } = ticket.request;
    const line = this.#lines.get(model_id);
    if (line?.tickets.delete(ticket) !== true) return;
    this.#count -= 1;
    const own = (this.#byTenant.get(tenant) ?? 0) - 1;
    if (own > 0) this.#byTenant.set(tenant, own);
    else this.#byTenant.delete(tenant);
    this.claims.leave(ticket, now_ms);
    if (line.tickets.size === 0) this.#lines.delete(model_id);
    else this.#wakeFirst(line);
  }

  mayClaimFrom(ticket: Ticket, device: DeviceAt): number {
    return this.claims.mayClaimFrom(ticket.request.arrived_ms, device);
  }

  /** Others' new requests keep off the device from now on. */
  claim(ticket: Ticket, device: DeviceAt): void {
    this.claims.claim(ticket, ticket.request.model_id, device);
  }
}

/** One request's place in the queue. */
export class Ticket {
  readonly request: Waiting;
  /** Its place among tenants; see fair-order.ts. */
  readonly tag: number;
  readonly number: number;
  readonly #queue: WaitQueue;
  #state: WaitState | null = null;
  #inLine = false;
  /** Resolves when it is its turn; null while it looks for an instance. */
  #turn: Promise<void> | null = null;
  #wake = () => {};

  constructor(request: Waiting, tag: number, number: number, queue: WaitQueue) {
    this.request = request;
    this.tag = tag;
    this.number = number;
    this.#queue = queue;
  }

  get priority(): Priority {
    return this.request.priority;
  }

  get arrived_ms(): number {
    return this.request.arrived_ms;
  }

  /** null until it is clear that the request has to wait. */
  get state(): WaitState | null {
    return this.#state;
  }

  get position(): number {
    return this.#queue.positionOf(this);
  }

  /** It waits and has no instance. */
  get isInLine(): boolean {
    return this.#inLine;
  }

  note(state: WaitState): void {
    this.#state = state;
  }

  standInLine(): Promise<void> {
    this.#inLine = true;
    this.#turn ??= new Promise((resolve) => {
      this.#wake = resolve;
    });
    return this.#turn;
  }

  /** Its turn; without effect while it looks for an instance already. */
  wake(): void {
    this.#wake();
    this.#turn = null;
  }

  /** It has an instance, loading or running: whoever stands behind it is next. */
  stepOut(): void {
    this.#inLine = false;
    this.#queue.steppedOut(this);
  }

  /** The second and later calls do nothing. */
  leave(now_ms: number): void {
    this.#inLine = false;
    this.#queue.leave(this, now_ms);
  }
}

function full(code: "overloaded" | "too_many_waiting", message: string): SllmError {
  return new SllmError(code, message, { retry_after_ms: retryAfter_ms });
}
