/**
 * The queue of systems that the policies are compared with: first come, first served, and each request for itself. A free
 * slot is its own model's, as with any router; when a device comes free all that wait look for it, in the order in which
 * they came. None waits for another's start, knows of others that wait, or lays claim to a device.
 */
import type { ModelId } from "../../schema/ids.ts";
import type { Ticket, Waiting } from "../admission/ticket.ts";
import { WaitQueue } from "../admission/wait-queue.ts";
import { noRivals, type Rivals } from "../scheduler/view.ts";

export class PlainQueue extends WaitQueue {
  /** In the order in which they came. */
  readonly #tickets = new Set<Ticket>();

  override enter(request: Waiting): Ticket {
    const ticket = super.enter(request);
    this.#tickets.add(ticket);
    return ticket;
  }

  override leave(ticket: Ticket, now_ms: number): void {
    this.#tickets.delete(ticket);
    super.leave(ticket, now_ms);
  }

  /** Of one model, or all. */
  override changed(model_id?: ModelId): void {
    for (const ticket of [...this.#tickets]) {
      if (model_id === undefined || ticket.request.model_id === model_id) ticket.wake();
    }
  }

  override aheadOf(_ticket: Ticket): number {
    return 0;
  }

  override rivalsOf(_model_id: ModelId): Rivals {
    return noRivals;
  }

  /** Nobody starts instances for a line: each request starts its own. */
  override waitingFor(_model_id: ModelId): number {
    return 0;
  }

  override claimWhenDue(): number {
    return Number.POSITIVE_INFINITY;
  }
}
