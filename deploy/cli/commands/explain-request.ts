/** A request explained for a terminal: what became of it, where its time went, and why it ran where it did. */
import type { ExplainedDecision, ExplainedRequest } from "../../../schema/api/admin.ts";
import { formatTable } from "../terminal/table.ts";

/** What happened, the timeline, and every decision with the candidates that lost. */
export function formatRequest(request: ExplainedRequest): string {
  const { model_id, generation_id, state, worker_id, instance_id, created_at, cold_start, error, owner } =
    request;
  const place = worker_id === null ? "nowhere yet" : `${instance_id} on ${worker_id}`;
  const lines = [
    `${model_id}: ${state}${error === null ? "" : ` (${error.code}: ${error.message})`}`,
    `${generation_id}, ${created_at}; ran ${cold_start ? "after a start " : ""}at ${place}${owner === null ? "" : `, by ${owner}`}`,
    ...timelineLines(request),
  ];
  if (request.decisions === null) {
    lines.push("", "Its decisions are not written yet: the gateway that took it does so when it ends.");
    return lines.join("\n");
  }
  for (const [i, decision] of request.decisions.entries()) lines.push("", ...decisionLines(i + 1, decision));
  return lines.join("\n");
}

/** Estimate of the last decision beside what it took to the first token. */
function timelineLines({ timeline_ms, decisions }: ExplainedRequest): string[] {
  if (timeline_ms === null) return [];
  const { total, ...stages } = timeline_ms;
  const parts = Object.entries(stages)
    .filter(([, ms]) => ms > 0)
    .map(([stage, ms]) => `${stage} ${formatMs(ms)}`);
  const estimate_ms = decisions?.at(-1)?.estimate_ms ?? null;
  const expected =
    estimate_ms === null ? "" : `, ${formatMs(estimate_ms)} ms were expected until it was served`;
  return [`first token after ${formatMs(total)} ms: ${parts.join(", ")}${expected}`];
}

function decisionLines(number: number, decision: ExplainedDecision): string[] {
  const { action, times, tier, estimate_ms, reason, losers } = decision;
  const from = tier === null ? "" : ` from ${tier}`;
  const expected = estimate_ms === null ? "" : `, expected after ${formatMs(estimate_ms)} ms`;
  const often = times > 1 ? ` (${times} times)` : "";
  const first = `${number}. ${action}${from}${placeOf(decision)}${expected}${often}: ${reason}`;
  if (losers.length === 0) return [first];
  const rows = losers.map((loser) => [
    loser.choice ?? "-",
    placeOf(loser).replace(/^ at /, ""),
    loser.estimate_ms === null ? "-" : formatMs(loser.estimate_ms),
    loser.why,
  ]);
  const titles = [
    { title: "INSTEAD OF" },
    { title: "WHERE" },
    { title: "MS", align: "right" as const },
    { title: "WHY NOT" },
  ];
  return [first, formatTable(titles, rows)];
}

function placeOf(at: Pick<ExplainedDecision, "worker_id" | "device_id" | "instance_id">): string {
  const device = at.worker_id === null ? "" : ` at ${at.worker_id}/${at.device_id}`;
  return at.instance_id === null ? device : `${device} ${at.instance_id}`;
}

function formatMs(ms: number): string {
  return ms.toFixed(1);
}
