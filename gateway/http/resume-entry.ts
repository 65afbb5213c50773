/** How a request wants to be read again, and where it goes on: its headers, and `background` in its body. */
import { z } from "zod";
import { parseOrThrow, SllmError } from "../../schema/error.ts";
import { type EventId, parseEventId, toHex } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Resumable } from "../dispatch/resumables.ts";
import type { AppContext } from "./context.ts";

const msPerSecond = 1_000;

const headers = z.object({
  "Idempotency-Key": z.string().min(1).max(limits.idempotency_key_chars).optional(),
  /** Seconds that it goes on without its client. */
  "x-sllm-resume": z.coerce
    .number()
    .int()
    .min(0)
    .max(limits.resume_ms / msPerSecond)
    .optional(),
});

/** How long a request with an idempotency key waits for its client, unless it says so itself. */
const keyResume_ms = 60_000;

export interface ResumeEntry {
  /** null: it ends with its connection. */
  readonly resumable: Pick<Resumable, "resume_ms"> | null;
  readonly key: string | null;
  /** Where the client stands in an answer that it has begun to read. */
  readonly last: EventId | null;
}

const plain: ResumeEntry = { resumable: null, key: null, last: null };

/** Throws `invalid_request` naming the header that makes no sense. */
export function resumeEntry(
  c: AppContext,
  body: { readonly background?: boolean | null | undefined; readonly n?: number | null | undefined },
): ResumeEntry {
  const asked = {
    "Idempotency-Key": c.req.header("idempotency-key"),
    "x-sllm-resume": c.req.header("x-sllm-resume"),
  };
  const isPlain = asked["Idempotency-Key"] === undefined && asked["x-sllm-resume"] === undefined;
  if (isPlain && body.background !== true && c.req.header("last-event-id") === undefined) return plain;
  const given = parseOrThrow(headers, asked, "header");
  const key = given["Idempotency-Key"] ?? null;
  const seconds = given["x-sllm-resume"];
  const isBackground = body.background === true;
  const last = lastEvent(c.req.header("last-event-id"));
  const mayReturn = key !== null || seconds !== undefined || isBackground;
  if (!mayReturn && last === null) return { resumable: null, key, last };
  if ((body.n ?? 1) > 1) {
    const message =
      "n: several answers cannot be read again; ask for one, or leave out what lets it be read again.";
    throw new SllmError("unsupported_parameter", message, { param: "n" });
  }
  if (!mayReturn) return { resumable: null, key, last };
  const resume_ms = isBackground ? null : seconds === undefined ? keyResume_ms : seconds * msPerSecond;
  return { resumable: { resume_ms }, key, last };
}

function lastEvent(text: string | undefined): EventId | null {
  if (text === undefined || text === "") return null;
  const last = parseEventId(text);
  if (last !== null && last.choice === 0) return last;
  throw new SllmError("invalid_request", "Last-Event-ID: is not the id of an event of such a stream.", {
    param: "Last-Event-ID",
  });
}

/** A key with the digest of the parsed request that it stands for: how its JSON was spaced does not count. */
export async function keyFor(key: string, path: string, body: unknown): Promise<Resumable["idempotency"]> {
  const bytes = new TextEncoder().encode(`${path}\n${JSON.stringify(body)}`);
  return { key, body_digest: toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))) };
}
