/** POST /v1/chat/completions and /v1/completions: parse, dispatch, answer as a stream or as one body. */
import { Hono } from "hono";
import {
  type ChatRequest,
  chatRequest,
  completionRequest,
  refuseUnsupported,
} from "../../../schema/api/chat.ts";
import type { GenerationView } from "../../../schema/api/generations.ts";
import { limits } from "../../../schema/limits.ts";
import { type StartGeneration, startChoices } from "../../dispatch/choices.ts";
import type { Dispatcher } from "../../dispatch/dispatcher.ts";
import type { FoundRun, Resumables } from "../../dispatch/resumables.ts";
import type { GenerationRequest, RequestEntry } from "../../dispatch/updates.ts";
import type { Clock, Log, Random } from "../../ports.ts";
import { AnswerFrames } from "../answer-frames.ts";
import { ChatShape } from "../chat-shape.ts";
import type { AppContext, AppEnv } from "../context.ts";
import { readBody } from "../read-json.ts";
import { requestEntry } from "../request-entry.ts";
import { cancelWith, respondFound, type ToShape } from "../respond-found.ts";
import { respondJson } from "../respond-json.ts";
import { respondStream } from "../respond-stream.ts";
import { keyFor, type ResumeEntry, resumeEntry } from "../resume-entry.ts";
import { TextShape } from "../text-shape.ts";
import { chatToGeneration, completionToGeneration } from "../to-generation.ts";

export interface CompletionDeps {
  readonly dispatcher: Dispatcher;
  readonly resumables: Resumables;
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

type Body = Pick<ChatRequest, "stream" | "stream_options" | "n" | "background">;

/** Runs the generation: for as long as the client stays, unless it may come back. */
function answer(
  c: AppContext,
  deps: CompletionDeps,
  body: Body,
  request: GenerationRequest,
  toShape: ToShape,
): Promise<Response> {
  const again = resumeEntry(c, body);
  const entry = requestEntry(c);
  if (again.last !== null || again.resumable !== null) {
    return answerResumable(c, deps, { body, request, toShape, entry, ...again });
  }
  const cancel = cancelWith(c);
  const choices = body.n ?? 1;
  const start: StartGeneration = (one, signal) => deps.dispatcher.start(one, entry, signal);
  const run = startChoices(start, request, choices, cancel.signal);
  const { generation_id } = run;
  const created = Math.floor(deps.clock.wallMs() / 1000);
  const include_usage = request.answer?.include_usage === true;
  const logprobs = request.sampling.top_logprobs !== undefined;
  const shape = toShape({ generation_id, model: request.model_id, created, include_usage, logprobs });
  if (body.stream !== true) return respondJson(run, shape, choices);
  const frames = new AnswerFrames({ generation_id, shape, include_usage, choices });
  return respondStream(deps, { run, frames, cancel, request_id: c.get("request_id") });
}

interface ResumableAnswer extends ResumeEntry {
  readonly body: Body;
  readonly request: GenerationRequest;
  readonly toShape: ToShape;
  readonly entry: RequestEntry;
}

/** Begins what may be read again, or goes on where its client stands. */
async function answerResumable(
  c: AppContext,
  deps: CompletionDeps,
  asked: ResumableAnswer,
): Promise<Response> {
  const { resumables } = deps;
  const { body, request, toShape, entry, key, last, resumable } = asked;
  const { tenant } = entry;
  const idempotency = key === null ? null : await keyFor(key, c.req.path, body);
  if (last !== null) {
    if (idempotency !== null) await resumables.checkKey(tenant, idempotency);
    const { generation_id, worker_id: seen_worker, last_token_index: after } = last;
    const found = await resumables.open({ generation_id, tenant, after, seen_worker });
    return respondFound(c, deps, found, { body, request, toShape, after });
  }
  if (resumable === null) throw new Error("nothing to begin or to go on with");
  const found = await resumables.begin(request, entry, { ...resumable, idempotency });
  if (body.background === true && body.stream !== true) return acceptBackground(c, deps, found, request);
  return respondFound(c, deps, found, { body, request, toShape, after: null });
}

/** 202: it runs whether somebody reads it or not. */
async function acceptBackground(
  c: AppContext,
  deps: CompletionDeps,
  { run }: FoundRun,
  request: GenerationRequest,
): Promise<Response> {
  await run.updates.return();
  const created = Math.floor(deps.clock.wallMs() / 1000);
  const { generation_id: id } = run;
  const view: GenerationView = {
    id,
    object: "generation",
    model: request.model_id,
    state: "queued",
    finish_reason: null,
    created,
  };
  return c.json(view, 202, { "x-sllm-generation": id });
}
