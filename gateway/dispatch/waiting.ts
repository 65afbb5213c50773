/** What a request that waits is told, and how it is refused when that took too long. Pure. */
import { SllmError } from "../../schema/error.ts";
import type { ModelId } from "../../schema/ids.ts";
import type { Ticket } from "../admission/ticket.ts";
import type { Load } from "../placement/loads.ts";
import type { Decision } from "../scheduler/decision.ts";
import type { WaitingUpdate } from "./updates.ts";

/** When a client that was held in vain should come back, if nothing better is known. */
const retryAfter_ms = 5_000;

/** As far as the last decision knows. */
export function waiting(state: WaitingUpdate["state"], ticket: Ticket, now_ms: number): WaitingUpdate {
  const due_ms = ticket.state?.due_ms ?? null;
  const eta_ms = due_ms === null ? null : Math.round(Math.max(0, due_ms - now_ms));
  return { type: "waiting", state, position: ticket.position, eta_ms, bytes_done: null, bytes_total: null };
}

/** The worker that loads knows better than the estimate, once bytes move. */
export function waitingFor(load: Load, ticket: Ticket, now_ms: number): WaitingUpdate {
  const update = waiting("loading", ticket, now_ms);
  const progress = load.progress();
  return progress === null ? update : { ...update, ...progress, eta_ms: progress.eta_ms ?? update.eta_ms };
}

interface Late {
  readonly model_id: ModelId;
  readonly arrived_ms: number;
  readonly deadline: { readonly deadline_ms: number; readonly is_own: boolean };
}

/** Throws `deadline_unreachable` for a request that named a deadline and is expected to be served after it. */
export function refuseLate(decision: Decision, { arrived_ms, deadline }: Late, now_ms: number): void {
  const { estimate_ms } = decision;
  if (!deadline.is_own || estimate_ms === null || now_ms + estimate_ms <= deadline.deadline_ms) return;
  const expected_ms = Math.ceil(now_ms + estimate_ms - arrived_ms);
  const allowed_ms = Math.round(deadline.deadline_ms - arrived_ms);
  const message = `The request may wait ${allowed_ms} ms and would wait about ${expected_ms} ms.`;
  throw new SllmError("deadline_unreachable", message, { retry_after_ms: Math.ceil(estimate_ms) });
}

/** Waiting for a load and waiting for others to end are different to a client: only the first has an end in sight. */
export function heldTooLong({ model_id, arrived_ms, deadline }: Late, update: WaitingUpdate): SllmError {
  const retry_after_ms = update.eta_ms ?? retryAfter_ms;
  if (deadline.is_own) {
    const message = `The request waited the ${Math.round(deadline.deadline_ms - arrived_ms)} ms that it may wait.`;
    return new SllmError("deadline_exceeded", message, { retry_after_ms });
  }
  if (update.state === "loading") {
    return new SllmError("model_loading", `The model '${model_id}' is being started.`, { retry_after_ms });
  }
  const message = `The model '${model_id}' waited too long for memory or slots that are in use.`;
  return new SllmError("deadline_exceeded", message, { retry_after_ms });
}
