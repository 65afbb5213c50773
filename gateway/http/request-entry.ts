/** How a request wants to be queued: its tenant by its key, priority and deadline by its headers. */
import { z } from "zod";
import { parseOrThrow, SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { priorities } from "../../schema/vocab.ts";
import type { RequestEntry } from "../dispatch/updates.ts";
import type { AppContext } from "./context.ts";

const headers = z.object({
  "x-sllm-priority": z.enum(priorities).optional(),
  /** Time from now until the request must have an instance. */
  "x-sllm-deadline-ms": z.coerce.number().int().min(1).max(limits.deadline_ms).optional(),
});

const nothing: z.output<typeof headers> = {};

/** Throws `invalid_request` for a header that makes no sense, `priority_not_allowed` beyond the key's bound. */
export function requestEntry(c: AppContext): RequestEntry {
  const { tenant, highest_priority } = c.get("client");
  const asked = {
    "x-sllm-priority": c.req.header("x-sllm-priority"),
    "x-sllm-deadline-ms": c.req.header("x-sllm-deadline-ms"),
  };
  const isPlain = asked["x-sllm-priority"] === undefined && asked["x-sllm-deadline-ms"] === undefined;
  const given = isPlain ? nothing : parseOrThrow(headers, asked, "header");
  const usual =
    priorities.indexOf(highest_priority) < priorities.indexOf("normal") ? highest_priority : "normal";
  const priority = given["x-sllm-priority"] ?? usual;
  if (priorities.indexOf(priority) > priorities.indexOf(highest_priority)) {
    const message = `Requests of '${tenant}' may have the priority '${highest_priority}' at most, not '${priority}'.`;
    throw new SllmError("priority_not_allowed", message, { param: "x-sllm-priority" });
  }
  return { tenant, priority, deadline_ms: given["x-sllm-deadline-ms"] ?? null };
}
