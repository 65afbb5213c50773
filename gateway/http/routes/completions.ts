/** POST /v1/chat/completions and /v1/completions: parse, dispatch, answer as a stream or as one body. */
import { Hono } from "hono";
import {
  type ChatRequest,
  chatRequest,
  completionRequest,
  refuseUnsupported,
} from "../../../schema/api/chat.ts";
import { limits } from "../../../schema/limits.ts";
import { type StartGeneration, startChoices } from "../../dispatch/choices.ts";
import type { Dispatcher } from "../../dispatch/dispatcher.ts";
import type { GenerationRequest } from "../../dispatch/updates.ts";
import type { Clock, Log, Random } from "../../ports.ts";
import { AnswerFrames } from "../answer-frames.ts";
import { ChatShape } from "../chat-shape.ts";
import type { AnswerIdentity, CompletionShape } from "../completion-shape.ts";
import type { AppContext, AppEnv } from "../context.ts";
import { readBody } from "../read-json.ts";
import { requestEntry } from "../request-entry.ts";
import { respondJson } from "../respond-json.ts";
import { respondStream } from "../respond-stream.ts";
import { TextShape } from "../text-shape.ts";
import { chatToGeneration, completionToGeneration } from "../to-generation.ts";

export interface CompletionDeps {
  readonly dispatcher: Dispatcher;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export function completionRoutes(deps: CompletionDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .post("/v1/chat/completions", async (c) => {
      const body = await readBody(c, chatRequest, limits.body_bytes);
      refuseUnsupported(body);
      return answer(c, deps, body, chatToGeneration(body, deps.random), (id) => new ChatShape(id));
    })
    .post("/v1/completions", async (c) => {
      const body = await readBody(c, completionRequest, limits.body_bytes);
      refuseUnsupported(body);
      return answer(c, deps, body, completionToGeneration(body, deps.random), (id) => new TextShape(id));
    });
}

/** Runs the generation for as long as the client stays: leaving cancels it. */
function answer(
  c: AppContext,
  deps: CompletionDeps,
  body: Pick<ChatRequest, "stream" | "stream_options" | "n">,
  request: GenerationRequest,
  toShape: (answer: AnswerIdentity) => CompletionShape,
): Promise<Response> {
  const cancel = new AbortController();
  const client = c.req.raw.signal;
  if (client.aborted) cancel.abort();
  client.addEventListener("abort", () => cancel.abort(), { once: true });

  const choices = body.n ?? 1;
  const entry = requestEntry(c);
  const start: StartGeneration = (one, signal) => deps.dispatcher.start(one, entry, signal);
  const run = startChoices(start, request, choices, cancel.signal);
  const { generation_id } = run;
  const created = Math.floor(deps.clock.wallMs() / 1000);
  const include_usage = body.stream === true && body.stream_options?.include_usage === true;
  const logprobs = request.sampling.top_logprobs !== undefined;
  const shape = toShape({ generation_id, model: request.model_id, created, include_usage, logprobs });
  if (body.stream !== true) return respondJson(run, shape, choices);
  const frames = new AnswerFrames({ generation_id, shape, include_usage, choices });
  return respondStream(deps, { run, frames, cancel, request_id: c.get("request_id") });
}
