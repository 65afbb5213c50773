/**
 * Requests for vectors inside one engine process: each input is a request of its own to the native engine, some of them
 * at a time, and their results are told in the order of the inputs.
 */
import { type NativeEngine, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";
import type { GenerationTimings } from "../../schema/cluster/generate.ts";
import { limits } from "../../schema/limits.ts";
import { toWireError } from "../status-codes.ts";

type RequestMessage = Extract<EngineMessage, { request: number }>;

/** One request as its sender numbers it. */
interface Run {
  readonly request: number;
  readonly inputs: readonly Int32Array[];
  readonly dimensions: number;
  readonly prompt_tokens: number;
  /** Native numbers of inputs that are in the engine, the oldest first. */
  readonly open: number[];
  submitted: number;
  finished: number;
  started: boolean;
  timings: GenerationTimings;
}

export class Embeddings {
  readonly #engine: Pick<NativeEngine, "embed" | "cancel">;
  /** By native number. */
  readonly #runs = new Map<number, Run>();
  #last = 0;

  constructor(engine: Pick<NativeEngine, "embed" | "cancel">) {
    this.#engine = engine;
  }

  /** Begins a request, at least one input. Throws SllmNativeError when the library refuses the first ones. */
  start(request: number, inputs: readonly Int32Array[], dimensions: number): void {
    const run: Run = {
      request,
      inputs,
      dimensions,
      prompt_tokens: inputs.reduce((sum, input) => sum + input.length, 0),
      open: [],
      submitted: 0,
      finished: 0,
      started: false,
      timings: { queue_ms: 0, prefill_ms: 0, decode_ms: 0 },
    };
    try {
      this.#fill(run);
    } catch (error) {
      this.#drop(run);
      throw error;
    }
  }

  /** Ends a request; false when there is none of this number. Its `error` message comes with the engine's next ones. */
  cancel(request: number): boolean {
    for (const run of this.#runs.values()) {
      if (run.request !== request) continue;
      for (const number of run.open) this.#engine.cancel(number);
      return true;
    }
    return false;
  }

  /** Messages of native requests as those of the senders' requests. */
  read(messages: readonly EngineMessage[]): EngineMessage[] {
    const told: EngineMessage[] = [];
    for (const message of messages) {
      if (!("request" in message)) told.push(message);
      else {
        const run = this.#runs.get(message.request);
        // Without one: the rest of a request that has ended.
        if (run !== undefined) this.#take(run, message, told);
      }
    }
    return told;
  }

  #fill(run: Run): void {
    while (run.open.length < limits.embedding_window) {
      const prompt = run.inputs[run.submitted];
      if (prompt === undefined) return;
      const request = ++this.#last;
      this.#engine.embed({ request, prompt, dimensions: run.dimensions });
      this.#runs.set(request, run);
      run.open.push(request);
      run.submitted++;
    }
  }

  #take(run: Run, message: RequestMessage, told: EngineMessage[]): void {
    const { request } = run;
    switch (message.type) {
      case "started":
        if (run.started) return;
        run.started = true;
        told.push({ type: "started", request, prompt_tokens: run.prompt_tokens });
        return;
      case "vectors":
        addVectors(told, request, run.finished, message.vectors);
        return;
      case "done":
        this.#finishInput(run, message.request, message.timings, told);
        return;
      case "error":
        this.#drop(run);
        told.push({ ...message, request });
        return;
      case "tokens":
        throw new Error("an engine that embeds has generated a token");
    }
  }

  #finishInput(run: Run, native: number, timings: GenerationTimings, told: EngineMessage[]): void {
    this.#runs.delete(native);
    // The engine takes them in the order they came.
    if (run.open.shift() !== native) throw new Error("the engine has ended inputs out of order");
    if (run.finished++ === 0) run.timings = { ...timings };
    else run.timings.prefill_ms = Math.max(run.timings.prefill_ms, timings.prefill_ms);
    const { request, prompt_tokens } = run;
    if (run.finished < run.inputs.length) {
      try {
        this.#fill(run);
      } catch (error) {
        if (!(error instanceof SllmNativeError)) throw error;
        this.#drop(run);
        told.push({ type: "error", request, error: toWireError(error) });
      }
      return;
    }
    const ended = { finish_reason: "stop", text: "", prompt_tokens, completion_tokens: 0 } as const;
    told.push({ type: "done", request, ...ended, timings: run.timings });
  }

  /** Forgets a request and ends what of it is in the engine. */
  #drop(run: Run): void {
    for (const number of run.open.splice(0)) {
      this.#runs.delete(number);
      this.#engine.cancel(number);
    }
  }
}

/** Joins vectors that follow each other, within the bound of one message. */
function addVectors(told: EngineMessage[], request: number, index: number, vectors: readonly string[]): void {
  const last = told.findLast((message) => "request" in message && message.request === request);
  const bytes = (list: readonly string[]) => list.reduce((sum, vector) => sum + vector.length, 0);
  if (
    last?.type === "vectors" &&
    bytes(last.vectors) + bytes(vectors) <= limits.vectors_message_bytes &&
    last.first_index + last.vectors.length === index
  ) {
    last.vectors.push(...vectors);
  } else told.push({ type: "vectors", request, first_index: index, vectors: [...vectors] });
}
