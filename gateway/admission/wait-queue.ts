/**
 * Who waits for an instance at this gateway, in what order, since when and until when. Bounded in all, per model and per
 * tenant. Only the first of each model's line looks for an instance; when it has one, or leaves, the next does.
 */
import { SllmError } from "../../schema/error.ts";
import type { ModelId } from "../../schema/ids.ts";
import type { Clock } from "../ports.ts";
import { type DeviceAt, DeviceClaims } from "./device-claims.ts";
import { compareInLine, compareLines, FairTags } from "./fair-order.ts";
import { Ticket, type Waiting } from "./ticket.ts";

/** Of all devices may be claimed at once: each drains, so that its slots idle. */
const claimedShare = 1 / 8;

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

interface Line {
  readonly tags: FairTags;
  readonly tickets: Set<Ticket>;
  /** Tickets that stand in line. */
  standing: number;
}

export class WaitQueue {
  readonly claims: DeviceClaims<Ticket>;
  readonly #options: WaitQueueOptions;
  readonly #lines = new Map<ModelId, Line>();
  readonly #byTenant = new Map<string, number>();
  #count = 0;
  #entered = 0;
  /** Lines in which somebody stands, and all that stand. */
  #standing = 0;
  #standingRequests = 0;

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
    const line = this.#lines.get(model_id) ?? this.#newLine();
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

  #newLine(): Line {
    return { tags: new FairTags(), tickets: new Set(), standing: 0 };
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

  /** Called by tickets that begin or cease to stand in line. */
  stands({ request }: Ticket, isStanding: boolean): void {
    const line = this.#lines.get(request.model_id);
    if (line === undefined) return;
    const before = line.standing;
    line.standing += isStanding ? 1 : -1;
    this.#standingRequests += isStanding ? 1 : -1;
    if (before === 0) this.#standing += 1;
    else if (line.standing === 0) this.#standing -= 1;
  }

  /** How many other models are waited for, and by how many requests. */
  rivalsOf(model_id: ModelId): { readonly models: number; readonly requests: number } {
    const own = this.waitingFor(model_id);
    return { models: this.#standing - (own > 0 ? 1 : 0), requests: this.#standingRequests - own };
  }

  /** Whether somebody who waits for that model goes before this one. */
  #hasEarlier(model_id: ModelId, ticket: Ticket): boolean {
    const { starvation_ms, clock } = this.#options;
    const now_ms = clock.monotonicMs();
    const line = this.#lines.get(model_id);
    const first = line === undefined ? null : this.#firstOf(line, now_ms);
    return first !== null && compareLines(first, ticket, now_ms, starvation_ms) < 0;
  }

  /** Requests of the model that stand in its line: they wait and have no instance. */
  waitingFor(model_id: ModelId): number {
    return this.#lines.get(model_id)?.standing ?? 0;
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
    const line = this.#lines.get(ticket.request.model_id) ?? this.#newLine();
    if (!line.tickets.has(ticket)) this.#add(line, ticket);
    return ticket.standInLine();
  }

  /**
   * Something has changed for the model, or for all: the first in line looks again. Of several models whoever goes before
   * looks first, and so has the first choice of what came free.
   */
  changed(model_id?: ModelId): void {
    if (model_id !== undefined) {
      this.#wakeFirst(this.#lines.get(model_id));
      return;
    }
    const { starvation_ms, clock } = this.#options;
    const now_ms = clock.monotonicMs();
    const firsts: Ticket[] = [];
    for (const line of this.#lines.values()) {
      const first = this.#firstOf(line, now_ms);
      if (first !== null) firsts.push(first);
    }
    firsts.sort((a, b) => compareLines(a, b, now_ms, starvation_ms));
    for (const first of firsts) first.wake();
  }

  #wakeFirst(line: Line | undefined): void {
    if (line !== undefined) this.#firstOf(line, this.#options.clock.monotonicMs())?.wake();
  }

  #firstOf({ tickets }: Line, now_ms: number): Ticket | null {
    let first: Ticket | null = null;
    for (const ticket of tickets) {
      if (ticket.isInLine && (first === null || this.#compare(ticket, first, now_ms) < 0)) first = ticket;
    }
    return first;
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

  /**
   * Lays claim to a device once the bound has passed and nobody who waits for what runs there came before: those are
   * served first, and a claim that keeps them out would only idle the device. Returns the rest of the bound.
   */
  claimWhenDue(
    ticket: Ticket,
    device: DeviceAt & { readonly behind: readonly ModelId[] },
    device_count: number,
  ): number {
    const left_ms = this.mayClaimFrom(ticket, device) - this.#options.clock.monotonicMs();
    if (left_ms > 0) return left_ms;
    if (this.claims.all.size >= Math.max(1, device_count * claimedShare)) return 0;
    if (!device.behind.some((model_id) => this.#hasEarlier(model_id, ticket))) this.claim(ticket, device);
    return 0;
  }

  mayClaimFrom(ticket: Ticket, device: DeviceAt): number {
    return this.claims.mayClaimFrom(ticket.request.arrived_ms, device);
  }

  /** Others' new requests keep off the device from now on. */
  claim(ticket: Ticket, device: DeviceAt): void {
    this.claims.claim(ticket, ticket.request.model_id, device);
  }
}

function full(code: "overloaded" | "too_many_waiting", message: string): SllmError {
  return new SllmError(code, message, { retry_after_ms: retryAfter_ms });
}
