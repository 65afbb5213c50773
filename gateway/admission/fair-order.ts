/**
 * Who of those that wait for one model goes next: the higher priority, then the tenant that has had the least, then who
 * came first. Tenants share by start tags: each request of a tenant starts, in the line's own time, where its last one
 * has ended, so that a tenant with one request never waits behind a thousand of another. Pure.
 */
import { type Priority, priorities } from "../../schema/vocab.ts";

export interface InLine {
  readonly priority: Priority;
  readonly arrived_ms: number;
  /** Given by `FairTags`; of equal ones the earlier arrival goes first. */
  readonly tag: number;
  /** Order of arrival, for requests of the same moment. */
  readonly number: number;
}

/** Below 0 when `a` goes first. A request that has waited `promote_ms` counts one priority higher, so that none starves. */
export function compareInLine(a: InLine, b: InLine, now_ms: number, promote_ms: number): number {
  return (
    rank(b, now_ms, promote_ms) - rank(a, now_ms, promote_ms) ||
    a.tag - b.tag ||
    a.arrived_ms - b.arrived_ms ||
    a.number - b.number
  );
}

/** Below 0 when the first of one model's line goes before that of another: tags of two lines have nothing in common. */
export function compareLines(a: InLine, b: InLine, now_ms: number, promote_ms: number): number {
  return (
    rank(b, now_ms, promote_ms) - rank(a, now_ms, promote_ms) ||
    a.arrived_ms - b.arrived_ms ||
    a.number - b.number
  );
}

function rank({ priority, arrived_ms }: InLine, now_ms: number, promote_ms: number): number {
  const promoted = promote_ms > 0 ? Math.floor(Math.max(0, now_ms - arrived_ms) / promote_ms) : 0;
  return Math.min(priorities.indexOf(priority) + promoted, priorities.length - 1);
}

/** Start tags of one line. Its time is the tag of whoever was served last. */
export class FairTags {
  #now = 0;
  /** Where the last request of each tenant ends; left out where that is past. */
  readonly #ends = new Map<string, number>();

  /** The tag of a tenant's next request. */
  next(tenant: string): number {
    const tag = Math.max(this.#now, this.#ends.get(tenant) ?? 0);
    this.#ends.set(tenant, tag + 1);
    return tag;
  }

  /** A request has got what it waited for. */
  served(tag: number): void {
    if (tag <= this.#now) return;
    this.#now = tag;
    for (const [tenant, end] of this.#ends) if (end <= tag) this.#ends.delete(tenant);
  }
}
