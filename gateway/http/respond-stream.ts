/** Answers with an event stream: holds the headers for a refusal, then pumps updates until the one end. */
import { toErrorBody, toSllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { encodeSseFrame, sseHeaders } from "../../schema/sse.ts";
import { settlesWithin } from "../dispatch/settles-within.ts";
import type { GenerationRun, GenerationUpdate } from "../dispatch/updates.ts";
import type { Clock, Log } from "../ports.ts";
import type { AnswerFrames } from "./answer-frames.ts";
import { answerHeaders } from "./answer-headers.ts";
import { StreamWriter } from "./stream-writer.ts";

export interface StreamDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface StreamAnswer {
  readonly run: GenerationRun;
  readonly frames: AnswerFrames;
  /** Aborting it cancels the generation; done here when the reader leaves. */
  readonly cancel: AbortController;
  readonly request_id: string;
}

type Next = Promise<IteratorResult<GenerationUpdate, void>>;

/**
 * Resolves with the response once the generation was accepted, or after `stream_header_hold_ms` whatever its state.
 * Throws what the generation fails with before that, so that it gets a proper status.
 */
export async function respondStream(deps: StreamDeps, answer: StreamAnswer): Promise<Response> {
  const { updates, generation_id } = answer.run;
  const until_ms = deps.clock.monotonicMs() + limits.stream_header_hold_ms;
  const seen: GenerationUpdate[] = [];
  let next: Next = updates.next();
  for (;;) {
    const left_ms = Math.max(0, until_ms - deps.clock.monotonicMs());
    if (!(await settlesWithin(next, deps.clock, left_ms, answer.cancel.signal))) break;
    const { done, value } = await next;
    if (done === true) throw new Error("a generation ended without its last update");
    seen.push(value);
    next = updates.next();
    if (value.type !== "waiting" && value.type !== "placed") break;
  }
  const writer = new StreamWriter(deps.clock, () => answer.cancel.abort());
  void pump(deps, answer, writer, seen, next);
  return new Response(writer.body, { headers: { ...sseHeaders, ...answerHeaders(generation_id, seen) } });
}

/** Never rejects. Writes exactly one end: what the frames make of `done`, or an error. */
async function pump(
  deps: StreamDeps,
  answer: StreamAnswer,
  writer: StreamWriter,
  seen: readonly GenerationUpdate[],
  first: Next,
): Promise<void> {
  const { frames, run } = answer;
  // Not every runtime cancels the body of a client that left: the request's own signal must end the pump too.
  answer.cancel.signal.addEventListener("abort", () => writer.close(), { once: true });
  if (answer.cancel.signal.aborted) writer.close();
  const endKeepAlive = keepAlive(deps.clock, writer, frames);
  try {
    // Who comes back has heard nothing for a while, and may lose this connection as well before the next word.
    if (frames.isContinued) writer.write(frames.keepAlive());
    for (const update of seen) writer.write(frames.encode(update));
    for (let next = first; ; next = run.updates.next()) {
      const { done, value } = await next;
      if (done === true) break;
      writer.write(frames.encode(value));
      if (!writer.hasRoom) await writer.room();
      if (!writer.isOpen) break;
    }
  } catch (thrown) {
    writer.write(errorFrame(deps.log, answer.request_id, thrown));
  } finally {
    endKeepAlive();
    writer.close();
    await run.updates.return();
  }
}

/** Says something whenever the stream was silent for the interval, unless its reader is behind anyway. Returns its end. */
function keepAlive(clock: Clock, writer: StreamWriter, frames: AnswerFrames): () => void {
  const interval_ms = limits.sse_keep_alive_ms;
  const look = () => {
    if (writer.hasRoom && writer.silent_ms >= interval_ms) writer.write(frames.keepAlive());
    const wait_ms = writer.hasRoom ? Math.max(1, interval_ms - writer.silent_ms) : interval_ms;
    cancel = clock.after(wait_ms, look);
  };
  let cancel = clock.after(interval_ms, look);
  return () => cancel();
}

/** The headers are out: an error travels as an event, and no `[DONE]` follows it. */
function errorFrame(log: Log, request_id: string, thrown: unknown): string {
  const error = toSllmError(thrown);
  if (error.code === "internal") log.error("stream_failed", { request_id }, error.cause);
  return encodeSseFrame({ data: JSON.stringify(toErrorBody(error, request_id)) });
}
