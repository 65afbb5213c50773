/** Answers with a generation that may be read again: from its beginning, or from where its reader stands. */
import type { ChatRequest } from "../../schema/api/chat.ts";
import type { FoundRun } from "../dispatch/resumables.ts";
import type { GenerationRequest } from "../dispatch/updates.ts";
import { AnswerFrames } from "./answer-frames.ts";
import type { AnswerIdentity, CompletionShape } from "./completion-shape.ts";
import type { AppContext } from "./context.ts";
import { respondJson } from "./respond-json.ts";
import { respondStream, type StreamDeps } from "./respond-stream.ts";

export type ToShape = (answer: AnswerIdentity) => CompletionShape;

export interface FoundAnswer {
  /** null: as a stream. */
  readonly body: Pick<ChatRequest, "stream"> | null;
  /** What the client says it asked for; null where it only names the generation. */
  readonly request: GenerationRequest | null;
  readonly toShape: ToShape;
  /** Last token that the client has; null: it has nothing. */
  readonly after: number | null;
}

/** What was asked for first decides the answer's form, so that all of it is one. */
export function respondFound(
  c: AppContext,
  deps: StreamDeps,
  { run, origin, logprobs }: FoundRun,
  { body, request, toShape, after }: FoundAnswer,
): Promise<Response> {
  const { generation_id } = run;
  const created = Math.floor((origin?.created_at_ms ?? deps.clock.wallMs()) / 1000);
  const model = origin?.model ?? request?.model_id ?? "";
  const include_usage = origin?.include_usage ?? request?.answer?.include_usage ?? false;
  const hasLogprobs = logprobs || request?.sampling.top_logprobs !== undefined;
  const shape = toShape({ generation_id, model, created, include_usage, logprobs: hasLogprobs });
  if (body !== null && body.stream !== true) return respondJson(run, shape, 1);
  const frames = new AnswerFrames({ generation_id, shape, include_usage, choices: 1, after });
  return respondStream(deps, { run, frames, cancel: cancelWith(c), request_id: c.get("request_id") });
}

/** Aborts when the client leaves. */
export function cancelWith(c: AppContext): AbortController {
  const cancel = new AbortController();
  const client = c.req.raw.signal;
  if (client.aborted) cancel.abort();
  client.addEventListener("abort", () => cancel.abort(), { once: true });
  return cancel;
}
