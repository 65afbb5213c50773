/**
 * The commands of one engine process: starts the pump thread, renders and tokenizes prompts, submits and cancels
 * requests. Lives on the main thread; every answer goes out through `write`. Longer than
 * other files because every command and every message of the pump meets the one engine here.
 */
import {
  type NativeEngine,
  type NativeLibrary,
  SllmNativeError,
} from "../../native/bun-ffi-helpers/native.ts";
import type { EngineBeat } from "../../schema/cluster/activity.ts";
import type { EngineCommand, EngineMessage } from "../../schema/cluster/engine.ts";
import type { WireError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { ModelTask } from "../../schema/vocab.ts";
import { toWireError } from "../status-codes.ts";
import { refuseTask, tokenizeInputs } from "./embed-inputs.ts";
import { Embeddings } from "./embeddings.ts";
import { preparePrompt } from "./prompts.ts";
import {
  type AdapterCommand,
  type AdapterMessage,
  controlWord,
  controlWords,
  type PumpCommand,
  type PumpMessage,
} from "./pump-messages.ts";
import { AnswerReaders } from "./readers.ts";

type EngineWarmCommand = Extract<EngineCommand, { op: "warm" }>;
type BuildCommand = Extract<EngineCommand, { op: "build" | "load" }>;
type AddAdapterCommand = Extract<EngineCommand, { op: "add_adapter" }>;
type EmbedCommand = Extract<EngineCommand, { op: "embed" }>;
type ExtendCommand = Extract<EngineCommand, { op: "extend" }>;
type MoveKvCommand = Extract<EngineCommand, { op: "save_kv" | "load_kv" }>;
type GenerateCommand = Extract<EngineCommand, { op: "generate" }>;

export interface SessionOptions {
  readonly library: NativeLibrary;
  readonly pump: Worker;
  /** Folder of the engine libraries. */
  readonly engine_libraries: string;
  /** Time per token of the echo engine. */
  readonly echo_token_us: number;
  /** Resolves when the messages have left the process. */
  readonly write: (messages: readonly EngineMessage[]) => Promise<void>;
  /** Called once, when the engine has ended: with 0 after `close`, with 1 after a failure. */
  readonly onEnd: (exitCode: number) => void;
}

/** One engine and its requests. */
export class Session {
  readonly #options: SessionOptions;
  readonly #control = new Int32Array(new SharedArrayBuffer(controlWords * Int32Array.BYTES_PER_ELEMENT));
  readonly #readers = new AnswerReaders();
  /** Brings adapters in; started with the first. */
  #adapterThread: Worker | null = null;
  #engine: NativeEngine | null = null;
  #contextTokens = 0;
  #task: ModelTask = "generate";
  /** Of an engine that makes vectors. */
  #embeddings: Embeddings | null = null;
  /** Long calls that the pump is inside of or was told to make: until they end it cannot be told anything. */
  #longCalls = 0;
  #kind: BuildCommand["engine"] | null = null;
  /** A `load` has asked for both, so nobody waits for the answer to its build. */
  #attachFollows = false;
  #takesRequests = false;
  /** What the pump has told since it was asked with the last beat. */
  #activity: EngineBeat | null = null;
  /** Resolves when the failure has been reported; null while all is well. */
  #failure: Promise<void> | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
    options.pump.onmessage = ({ data }: MessageEvent<PumpMessage>) => this.#onPump(data);
    options.pump.onerror = (event) => {
      event.preventDefault();
      this.#fail({ code: "internal", message: `the engine's thread has failed: ${event.message}` });
      void this.#end();
    };
    const control = this.#control.buffer as SharedArrayBuffer;
    options.pump.postMessage({ op: "open", library: options.library.path, control } satisfies PumpCommand);
  }

  /** Carries out a command of the supervisor. `exit` is the caller's business. */
  handle(command: Exclude<EngineCommand, { op: "exit" }>): void {
    switch (command.op) {
      case "limit":
        this.#limitMemory(command.private_bytes);
        break;
      case "warm":
        this.#warm(command);
        break;
      case "build":
        this.#build(command);
        break;
      case "load":
        this.#attachFollows = true;
        this.#build(command);
        this.#attach(command.weights_path);
        break;
      case "attach":
        this.#attach(command.weights_path);
        break;
      case "park":
        this.#takesRequests = false;
        this.#tell({ op: "park", keep_weights: command.keep_weights });
        break;
      case "generate":
        this.#request(command.request, (engine) => this.#submit(engine, command));
        break;
      case "embed":
        this.#request(command.request, (engine) => this.#embed(engine, command));
        break;
      case "add_adapter":
        this.#addAdapter(command);
        break;
      case "remove_adapter":
        this.#removeAdapter(command.adapter);
        break;
      case "hold":
        this.#engine?.hold(command.request);
        break;
      case "extend":
        this.#extend(command);
        break;
      case "save_kv":
      case "load_kv":
        this.#moveKv(command);
        break;
      case "cancel":
        if (this.#embeddings?.cancel(command.request) !== true) this.#engine?.cancel(command.request);
        break;
    }
  }

  /**
   * Ends the engine in order. False when that is not possible because the library is loading or building it: the
   * caller ends the process instead.
   */
  close(): boolean {
    if (this.#longCalls > 0) return false;
    if (this.#engine === null) void this.#end();
    else this.#tell({ op: "close" });
    return true;
  }

  /**
   * Says that both threads answer, and what the engine is at. Says nothing while the pump does not although it should.
   * Resolves when it is written.
   */
  async beat(): Promise<void> {
    const activity = this.#activity;
    this.#activity = null;
    Atomics.store(this.#control, controlWord.asked, 1);
    const pumpIsBusy = this.#longCalls > 0 || !this.#takesRequests;
    if (activity === null && !pumpIsBusy) return;
    await this.#options.write([{ type: "beat", activity }]);
  }

  #limitMemory(private_bytes: number): void {
    try {
      this.#options.library.limitMemory(private_bytes);
    } catch (error) {
      // Where the system bounds nothing, an engine that takes too much is left to the system's own judgement.
      if (!(error instanceof SllmNativeError)) throw error;
      process.stderr.write(`no limit for memory: ${error.message}\n`);
    }
  }

  #tell(command: Exclude<PumpCommand, { op: "open" }>): void {
    Atomics.add(this.#control, controlWord.messages, 1);
    this.#options.pump.postMessage(command);
  }

  #tellLong(command: Extract<PumpCommand, { op: "warm" | "build" | "attach" }>): void {
    this.#longCalls++;
    this.#tell(command);
  }

  #warm(command: EngineWarmCommand): void {
    if (command.engine === "echo") {
      void this.#options.write([{ type: "warm" }]);
      return;
    }
    this.#tellLong({ op: "warm", engine_libraries: this.#options.engine_libraries });
  }

  #build(command: BuildCommand): void {
    if (this.#kind !== null) throw new Error("an engine process builds one model only");
    this.#kind = command.engine;
    this.#tellLong({
      op: "build",
      params: {
        kind: command.engine === "echo" ? "SLLM_ENGINE_ECHO" : "SLLM_ENGINE_LLAMA",
        library_dir: this.#options.engine_libraries,
        header_path: command.header_path,
        weights_path: "",
        weights_bytes: BigInt(command.weights_bytes),
        context_tokens: command.context_tokens,
        slots: command.slots,
        batch_tokens: limits.batch_tokens,
        threads: command.threads,
        devices: command.devices ?? "",
        queue: command.queue ?? limits.engine_queue,
        prefill_tokens: command.prefill_tokens ?? limits.prefill_tokens,
        kv_tokens: command.kv_tokens ?? 0,
        deterministic: command.deterministic ?? false,
        repacked: command.repacked ?? false,
        echo_token_us: this.#options.echo_token_us,
      },
    });
  }

  #attach(weights_path: string): void {
    this.#tellLong({ op: "attach", weights_path: this.#kind === "echo" ? null : weights_path });
  }

  /** Gives the engine a request; what refuses it becomes the request's only message. */
  #request(request: number, submit: (engine: NativeEngine) => WireError | null): void {
    const refuse = (error: WireError) => void this.#options.write([{ type: "error", request, error }]);
    if (this.#engine === null || !this.#takesRequests) {
      refuse({ code: "model_loading", message: "The model is not ready yet." });
      return;
    }
    try {
      const refusal = submit(this.#engine);
      if (refusal !== null) refuse(refusal);
    } catch (error) {
      if (!(error instanceof SllmNativeError)) throw error;
      refuse(toWireError(error));
    }
  }

  #extend({ request, tokens, go }: ExtendCommand): void {
    try {
      this.#engine?.extend(request, Int32Array.from(tokens), go);
    } catch (error) {
      if (!(error instanceof SllmNativeError)) throw error;
      // What is no token of the model cannot be output of it: the request cannot go on.
      process.stderr.write(`request ${request} was not extended: ${error.message}\n`);
      this.#engine?.cancel(request);
    }
  }

  #moveKv(command: MoveKvCommand): void {
    const { request, path, from, to } = command;
    const refuse = (error: WireError) => void this.#options.write([{ type: "kv", request, to, error }]);
    try {
      const engine = this.#engine;
      const isTaken =
        command.op === "save_kv"
          ? engine?.saveKv(request, path, from, to)
          : engine?.loadKv(request, path, command);
      if (isTaken !== true) refuse({ code: "not_found", message: "The request is not here." });
    } catch (error) {
      if (!(error instanceof SllmNativeError)) throw error;
      refuse(toWireError(error));
    }
  }

  #addAdapter({ op: _, weights_bytes, ...files }: AddAdapterCommand): void {
    const { adapter } = files;
    if (this.#engine === null || !this.#takesRequests) {
      const error: WireError = { code: "model_loading", message: "The model is not ready yet." };
      void this.#options.write([{ type: "adapter_refused", adapter, error }]);
      return;
    }
    this.#adapterThread ??= this.#startAdapterThread();
    this.#adapterThread.postMessage({
      library: this.#options.library.path,
      control: this.#control.buffer as SharedArrayBuffer,
      handle: this.#engine.handle,
      params: { ...files, weights_bytes: BigInt(weights_bytes) },
    } satisfies AdapterCommand);
  }

  #removeAdapter(adapter: number): void {
    try {
      this.#engine?.removeAdapter(adapter);
    } catch (error) {
      // One that went with a park or a failure is gone as it should be.
      if (!(error instanceof SllmNativeError)) throw error;
      process.stderr.write(`adapter ${adapter} was not removed: ${error.message}\n`);
    }
  }

  #startAdapterThread(): Worker {
    const thread = new Worker(new URL("./adapter-thread.ts", import.meta.url), { type: "module" });
    thread.onmessage = ({ data }: MessageEvent<AdapterMessage>) => void this.#options.write([data]);
    thread.onerror = (event) => {
      event.preventDefault();
      this.#fail({ code: "internal", message: `the thread for adapters has failed: ${event.message}` });
      void this.#end();
    };
    return thread;
  }

  #embed(engine: NativeEngine, command: EmbedCommand): WireError | null {
    const wanted = command.query === undefined ? "embed" : "rerank";
    const refusal = refuseTask(this.#task, wanted);
    if (refusal !== null || this.#embeddings === null) return refusal;
    const inputs = tokenizeInputs(engine, command, this.#contextTokens);
    if (!Array.isArray(inputs)) return inputs;
    this.#embeddings.start(command.request, inputs, command.dimensions ?? 0);
    return null;
  }

  /** A refusal, or null when the engine has the request. Throws SllmNativeError when the library refuses it. */
  #submit(engine: NativeEngine, command: GenerateCommand): WireError | null {
    const refusal = refuseTask(this.#task, "generate");
    if (refusal !== null) return refusal;
    const { tokens, constraint, stops, chat } = preparePrompt(engine, command);
    if (tokens.length >= this.#contextTokens) {
      chat?.[Symbol.dispose]();
      return contextError(tokens.length, this.#contextTokens);
    }
    this.#readers.open(command.request, { reader: chat, prompt: command.tell_prompt ? [...tokens] : null });
    try {
      engine.submit({
        request: command.request,
        prompt: tokens,
        resume: Int32Array.from(command.resume?.output ?? []),
        max_tokens: command.max_tokens ?? 0,
        ignore_eos: command.ignore_eos,
        stop: [...command.stop, ...stops],
        constraint,
        adapter: command.adapter,
        held: command.held,
        awaits_kv: command.awaits_kv,
        ...command.sampling,
        seed: BigInt.asUintN(64, BigInt(command.sampling.seed)),
      });
      return null;
    } catch (error) {
      this.#readers.close(command.request);
      throw error;
    }
  }

  #onPump(message: PumpMessage): void {
    switch (message.type) {
      case "warm":
        this.#longCalls--;
        void this.#options.write([{ type: "warm" }]);
        break;
      case "built":
        this.#longCalls--;
        this.#engine = this.#options.library.borrowEngine(message.handle);
        this.#contextTokens = message.context_tokens;
        this.#task = message.task;
        if (message.task !== "generate") this.#embeddings = new Embeddings(this.#engine);
        if (!this.#attachFollows) {
          void this.#options.write([{ type: "built", model_build_ms: message.model_build_ms }]);
        }
        break;
      case "attached": {
        this.#longCalls--;
        this.#takesRequests = true;
        const { type: _, ...facts } = message;
        void this.#options.write([{ type: "ready", ...facts }]);
        break;
      }
      case "parked":
        void this.#options.write([message]);
        break;
      case "batch":
        void this.#options.write(this.#read(message.messages)).then(() => {
          Atomics.sub(this.#control, controlWord.unwritten, 1);
          Atomics.notify(this.#control, controlWord.unwritten);
        });
        break;
      case "activity":
        this.#activity = message.activity;
        break;
      case "failed":
        this.#fail(message.error);
        break;
      case "closed":
        void this.#end();
        break;
    }
  }

  #read(messages: readonly EngineMessage[]): readonly EngineMessage[] {
    return this.#embeddings === null ? this.#readers.read(messages) : this.#embeddings.read(messages);
  }

  #fail(error: WireError): void {
    this.#failure ??= this.#options.write([{ type: "failed", error }]);
  }

  async #end(): Promise<void> {
    this.#readers.closeAll();
    this.#engine = null;
    await this.#failure;
    this.#options.onEnd(this.#failure === null ? 0 : 1);
  }
}

function contextError(prompt_tokens: number, context_tokens: number): WireError {
  return {
    code: "context_length_exceeded",
    message: `The prompt has ${prompt_tokens} tokens; the context of ${context_tokens} tokens has no room for an answer.`,
  };
}
