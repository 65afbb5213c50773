/** GET /admin/v1/queue: who waits for what at this gateway, since when and for how long still. */
import { Hono } from "hono";
import type { QueueView, WaitingRequest } from "../../../schema/api/admin.ts";
import type { Ticket } from "../../admission/ticket.ts";
import type { WaitQueue } from "../../admission/wait-queue.ts";
import type { Clock } from "../../ports.ts";
import type { AppEnv } from "../context.ts";

export interface QueueRouteDeps {
  readonly queue: WaitQueue;
  readonly clock: Pick<Clock, "monotonicMs">;
}

export function queueRoutes({ queue, clock }: QueueRouteDeps): Hono<AppEnv> {
  return new Hono<AppEnv>().get("/queue", (c) => {
    const now_ms = clock.monotonicMs();
    const data = queue.waiting().flatMap((ticket) => toWaiting(ticket, now_ms));
    const claims = [...queue.claims.all].map(([device, model_id]) => ({ device, model_id }));
    return c.json({ data, claims } satisfies QueueView);
  });
}

function toWaiting({ request, state, position }: Ticket, now_ms: number): WaitingRequest[] {
  if (state === null) return [];
  const { generation_id, model_id, tenant, priority, arrived_ms, deadline_ms } = request;
  return [
    {
      ...{ generation_id, model_id, tenant, priority, position },
      state: state.state,
      waited_ms: Math.round(now_ms - arrived_ms),
      eta_ms: state.due_ms === null ? null : Math.round(Math.max(0, state.due_ms - now_ms)),
      remaining_ms: Math.round(Math.max(0, deadline_ms - now_ms)),
      reason: state.reason,
    },
  ];
}
