/**
 * One model instance: its state, its engine process, its share of the host tier and the requests that run on it.
 * `loading -> ready -> draining -> gone`, or `failed` with a reason; the worker's README shows the whole machine.
 */
import type { EngineCommand, EngineMessage, engineKinds } from "../../schema/cluster/engine.ts";
import type { LoadEvent, LoadRequest, LoadTimings } from "../../schema/cluster/instances.ts";
import type { InstanceReport } from "../../schema/cluster/membership.ts";
import type { WireError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { type InstanceState, instanceMoves } from "../../schema/vocab.ts";
import { Changes } from "../changes.ts";
import type { StoredCheckpoint } from "../checkpoints/disk-tier.ts";
import type { HostLease } from "../checkpoints/host-tier.ts";
import type { Clock } from "../ports.ts";
import type { EngineEnd, EngineHandle, LaunchEngine } from "./engine-process.ts";
import { engineEndError, engineError, readError } from "./load-errors.ts";
import { type GenerationListener, RequestTable } from "./request-table.ts";

/** What a request asks of the engine. */
export type GenerateSettings = Omit<Extract<EngineCommand, { op: "generate" }>, "op" | "request">;

export interface InstanceOptions {
  readonly request: LoadRequest;
  readonly checkpoint: StoredCheckpoint;
  readonly engine: (typeof engineKinds)[number];
  readonly threads: number;
  readonly launch: LaunchEngine;
  /** Takes a share of the checkpoint's host copy. */
  readonly acquire: () => HostLease;
  /** Resolves when the checkpoint's header is known to be good. */
  readonly verifyHeader: () => Promise<void>;
  readonly clock: Clock;
  /** Called after every change of state. */
  readonly onChange: () => void;
  /** Called once, when the process is gone. */
  readonly onReleased: () => void;
}

export class Instance {
  readonly request: LoadRequest;
  /** Wakes readers of the load; they look at the state themselves. */
  readonly changes = new Changes();
  readonly #options: InstanceOptions;
  readonly #startedMs: number;
  readonly #requests = new RequestTable();
  readonly #hello = Promise.withResolvers<"hello">();
  #state: InstanceState = "loading";
  #error: WireError | null = null;
  #timings: LoadTimings | null = null;
  #engine: EngineHandle | null = null;
  #engineEnded = false;
  #lease: HostLease | null = null;
  #processStartMs = 0;
  /** Set when the engine has built its model. */
  #modelBuildMs: number | null = null;
  /** Set when somebody wants it gone: what happens from then on is no failure. */
  #stopping = false;
  #gone: Promise<void> | null = null;

  constructor(options: InstanceOptions) {
    this.request = options.request;
    this.#options = options;
    this.#startedMs = options.clock.monotonicMs();
  }

  get state(): InstanceState {
    return this.#state;
  }

  /** Why it failed or never became ready; null otherwise. */
  get error(): WireError | null {
    return this.#error;
  }

  get pid(): number | null {
    return this.#engineEnded ? null : (this.#engine?.pid ?? null);
  }

  /** True while a request runs or waits. */
  get isBusy(): boolean {
    return this.#requests.size > 0;
  }

  /** For heartbeat and status. */
  report(): InstanceReport {
    const { active, size } = this.#requests;
    const { instance_id, model_id } = this.request;
    return { instance_id, model_id, state: this.#state, active, queued: size - active, error: this.#error };
  }

  /** Where the load stands: its end, or the last known progress. */
  loadEvent(): LoadEvent {
    if (this.#error) return { type: "failed", error: this.#error };
    if (this.#timings) return { type: "ready", timings: this.#timings };
    const bytes_total = this.#options.checkpoint.manifest.weights.bytes;
    const { bytes_done, read_ms } = this.#lease?.status() ?? { bytes_done: 0, read_ms: 0 };
    const eta_ms = bytes_done === 0 ? null : Math.round((read_ms * (bytes_total - bytes_done)) / bytes_done);
    return { type: "progress", bytes_done, bytes_total, eta_ms };
  }

  /**
   * Starts process and read at once; the engine builds its model while the weights arrive. Failures become the
   * state `failed`. Call it once.
   */
  async load(): Promise<void> {
    try {
      const engine = this.#options.launch({
        onMessage: (message) => this.#onMessage(message),
        onEnd: (end) => this.#onEnd(end),
      });
      this.#engine = engine;
      void this.#expectHello();
      const lease = this.#options.acquire();
      this.#lease = lease;
      void this.#followRead(lease);
      await this.#options.verifyHeader();
      if (this.#state === "loading" && !this.#stopping) engine.send(this.#loadCommand(lease));
    } catch (error) {
      this.#fail(readError(error, this.#options.checkpoint.directory));
    }
  }

  /** Runs a request; exactly one `done` or `error` event ends it. The instance must be ready. Returns its number. */
  submit(settings: GenerateSettings, onEvent: GenerationListener): number {
    if (this.#state !== "ready" || !this.#engine) throw new Error("submit needs a ready instance");
    const request = this.#requests.open(onEvent);
    this.#engine.send({ op: "generate", request, ...settings });
    return request;
  }

  /** Asks the engine to end a request; its `error` event with code `cancelled` follows unless it was done before. */
  cancel(request: number): void {
    if (this.#requests.has(request)) this.#engine?.send({ op: "cancel", request });
  }

  /**
   * Ends the instance and resolves when its process is gone. What still runs is cancelled. A failed instance
   * becomes `gone` too: nobody needs its reason any more.
   */
  stop(): Promise<void> {
    this.#gone ??= this.#stop();
    return this.#gone;
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    if (this.#state === "ready") this.#move("draining");
    if (this.#state === "loading") {
      this.#error = { code: "cancelled", message: "The instance was stopped while it was loading." };
    }
    this.#requests.endAll({ code: "cancelled", message: "The instance was stopped." });
    await this.#engine?.stop();
    this.#release();
    this.#move("gone");
  }

  #move(to: InstanceState): void {
    const legal: readonly InstanceState[] = instanceMoves[this.#state];
    if (!legal.includes(to)) throw new Error(`an instance cannot move from ${this.#state} to ${to}`);
    this.#state = to;
    this.changes.notify();
    this.#options.onChange();
  }

  /** `requestError` is what clients hear, if that is less than what operators do. */
  #fail(error: WireError, requestError = error): void {
    if (this.#stopping || (this.#state !== "loading" && this.#state !== "ready")) return;
    this.#error = error;
    this.#requests.endAll(requestError);
    if (this.#engineEnded || !this.#engine) this.#release();
    else this.#engine.kill();
    this.#move("failed");
  }

  /** Lets the host copy and the booked memory go, once. */
  #release(): void {
    const lease = this.#lease;
    this.#lease = null;
    if (this.#released) return;
    this.#released = true;
    this.#options.onReleased();
    lease?.release();
  }
  #released = false;

  async #expectHello(): Promise<void> {
    const timeout = new AbortController();
    const late = this.#options.clock.sleep(limits.engine_hello_ms, timeout.signal);
    const first = await Promise.race([late, this.#hello.promise]);
    timeout.abort();
    if (first !== "hello" && this.#state === "loading") {
      const message = `The engine process did not start within ${limits.engine_hello_ms} ms.`;
      this.#fail({ code: "model_load_failed", message });
    }
  }

  /** Passes the progress of the read on and fails with the store's own words, which name file and offset. */
  async #followRead(lease: HostLease): Promise<void> {
    while (this.#state === "loading" && this.#lease === lease) {
      const { state, failure } = lease.status();
      if (failure) this.#fail(readError(failure, this.#options.checkpoint.directory));
      else this.#readyWhenComplete();
      this.changes.notify();
      if (state !== "loading") return;
      await lease.changed();
    }
  }

  #loadCommand(lease: HostLease): EngineCommand {
    const { request, checkpoint, engine, threads } = this.#options;
    return {
      op: "load",
      engine,
      header_path: checkpoint.header_path,
      weights_path: lease.weights_path,
      weights_bytes: checkpoint.manifest.weights.bytes,
      context_tokens: request.context_tokens,
      slots: request.slots,
      threads,
    };
  }

  #onMessage(message: EngineMessage): void {
    switch (message.type) {
      case "hello":
        this.#processStartMs = this.#sinceStart();
        this.#hello.resolve("hello");
        break;
      case "warm":
        // The answer to whoever kept the process in reserve; it came after the load began.
        break;
      case "ready":
        this.#modelBuildMs = message.model_build_ms;
        this.#readyWhenComplete();
        break;
      case "failed":
        this.#fail(this.#lease?.status().failure ? this.#readFailure() : this.#engineFailure(message.error));
        break;
      default:
        this.#requests.deliver(message);
    }
  }

  /** Ready is an engine with a model and a host copy with all its bytes checked. */
  #readyWhenComplete(): void {
    const lease = this.#lease;
    if (this.#state !== "loading" || this.#stopping || this.#modelBuildMs === null || !lease) return;
    const status = lease.status();
    if (status.state !== "ready") return;
    this.#timings = {
      process_start_ms: this.#processStartMs,
      disk_read_ms: lease.was_present ? 0 : status.read_ms,
      disk_read_bytes: lease.was_present ? 0 : status.bytes_total,
      model_build_ms: this.#modelBuildMs,
      total_ms: this.#sinceStart(),
    };
    this.#move("ready");
  }

  /** The store knows better than the engine why weights did not come. */
  #readFailure(): WireError {
    return readError(this.#lease?.status().failure, this.#options.checkpoint.directory);
  }

  #engineFailure(error: WireError): WireError {
    return engineError(error, this.#options.checkpoint.directory);
  }

  #onEnd(end: EngineEnd): void {
    this.#engineEnded = true;
    this.#hello.resolve("hello");
    const wasLoading = this.#state === "loading";
    this.#fail(engineEndError(end, wasLoading), engineEndError({ ...end, last_lines: [] }, wasLoading));
    if (this.#state === "failed") this.#release();
  }

  #sinceStart(): number {
    return this.#options.clock.monotonicMs() - this.#startedMs;
  }
}
