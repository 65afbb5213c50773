/**
 * One model instance: its state, its engine process, its share of the host tier and the requests that run on it.
 * `loading -> ready -> draining -> gone`, `parked` in between, or `failed` with a reason; the worker's README shows
 * the whole machine. Longer than other files because start, park, resume and every end meet in one state.
 */
import type { EngineActivity } from "../../schema/cluster/activity.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";
import type { LoadEvent, LoadRequest } from "../../schema/cluster/instances.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import type { InstanceReport } from "../../schema/cluster/membership.ts";
import { SllmError, toSllmError, type WireError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { type InstanceState, instanceMoves } from "../../schema/vocab.ts";
import { Changes } from "../changes.ts";
import type { AcquireOptions, HostLease } from "../checkpoints/host-lease.ts";
import { settlesInTime } from "../within-time.ts";
import { Adapters, type AdapterUse } from "./adapters.ts";
import { onDiscreteDevice } from "./devices.ts";
import type { EngineEnd, EngineHandle, EngineObserver, Skeleton } from "./engine-process.ts";
import { EngineSilence } from "./engine-silence.ts";
import { type InstanceOptions, skeletonOf } from "./instance-options.ts";
import { engineEndError, engineFailure, loadFailure, readError } from "./load-errors.ts";
import { LoadRecord, loadProgress } from "./load-record.ts";
import { Parking } from "./parking.ts";
import {
  type EmbedSettings,
  type EngineKv,
  type GenerateSettings,
  type GenerationListener,
  type HeldListener,
  type KvMove,
  type KvOutcome,
  RequestTable,
} from "./request-table.ts";
import { Watchdog } from "./watchdog.ts";

export class Instance {
  readonly request: LoadRequest;
  readonly skeleton: Skeleton;
  /** Wakes readers of the load; they look at the state themselves. */
  readonly changes = new Changes();
  readonly #options: InstanceOptions;
  /** The load under way, or the last one. */
  #load: LoadRecord;
  readonly #requests = new RequestTable();
  readonly #hello = Promise.withResolvers<void>();
  readonly #observer: EngineObserver = {
    onMessage: (message) => this.#onMessage(message),
    onEnd: (end) => this.#onEnd(end),
  };
  #state: InstanceState = "loading";
  #error: WireError | null = null;
  #engine: EngineHandle | null = null;
  #engineEnded = false;
  /** As the engine tells it; null outside the deterministic mode. */
  #fingerprint: string | null = null;
  #kv: EngineKv | null = null;
  #lease: HostLease | null = null;
  /** Aborted when nobody wants the instance any more. */
  readonly #leaving = new AbortController();
  #parking: Parking | null = null;
  readonly #adapters: Adapters;
  /** What requests hold of them, and those that still wait for theirs. */
  readonly #adapterUses = new Map<number, AdapterUse>();
  readonly #awaitsAdapter = new Map<number, AbortController>();
  readonly #watchdog: Watchdog;
  readonly #silence: EngineSilence;
  #activity: EngineActivity | null = null;
  /** Resolves when the last park has ended, in whatever way. */
  #parkEnd = Promise.resolve(false);
  /** Set when somebody wants it gone: what happens from then on is no failure. */
  #stopping = false;
  #released = false;
  #gone: Promise<void> | null = null;

  constructor(options: InstanceOptions) {
    this.request = options.request;
    this.#options = options;
    this.skeleton = skeletonOf(options);
    this.#load = new LoadRecord(options.clock, options.trace);
    this.#adapters = new Adapters({
      ...options.adapters,
      book: (bytes) => this.#bookAdapters(bytes),
      send: (command) => this.#engine?.send(command),
    });
    const { clock, engine_stall_ms: stall_ms } = options;
    this.#watchdog = new Watchdog({ clock, stall_ms, onStall: (message) => this.#stalled(message) });
    this.#silence = new EngineSilence({
      clock,
      isBusy: () => this.#requests.size > 0,
      onSilent: () => this.#onSilence(),
    });
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

  /** True while a request runs or waits, or an adapter is on its way. */
  get isBusy(): boolean {
    return this.#requests.size > 0 || this.#adapters.isLoading;
  }

  /** For heartbeat and status. */
  report(): InstanceReport {
    const { active, size } = this.#requests;
    const { instance_id, model_id, checkpoint } = this.request;
    const fingerprint =
      this.#fingerprint === null ? {} : { fingerprint: `${checkpoint}, ${this.#fingerprint}` };
    const queued = size - active;
    const facts = { ...fingerprint, ...(this.#activity === null ? {} : { activity: this.#activity }) };
    return { instance_id, model_id, state: this.#state, active, queued, ...facts, error: this.#error };
  }

  /** Where the load stands: its end, or the last known progress. */
  loadEvent(): LoadEvent {
    if (this.#error) return { type: "failed", error: this.#error };
    if (this.#load.timings) return { type: "ready", timings: this.#load.timings };
    const { bytes } = this.#options.checkpoint.manifest.weights;
    return loadProgress(bytes, this.#load.diskPosition, this.#lease?.status());
  }

  /**
   * Starts process and read at once; the engine builds its model while the weights arrive. Failures become the
   * state `failed`. Call it once.
   */
  async load(): Promise<void> {
    const { trace } = this.#load;
    try {
      trace.begin("process", "lookup");
      const engine = this.#options.launch(this.#observer, this.skeleton);
      this.#engine = engine;
      this.#parking = new Parking(engine, this.#options.clock);
      void this.#watchdog.watch();
      void this.#silence.watch();
      const { memory_limit_bytes } = this.#options;
      if (memory_limit_bytes !== null) engine.send({ op: "limit", private_bytes: memory_limit_bytes });
      void this.#expectHello();
      trace.begin("header_check", "lookup");
      const [weights_path] = await Promise.all([
        this.#takeWeights(),
        this.#options.verifyHeader().then(() => trace.end("header_check")),
      ]);
      if (weights_path === null || !this.#isLoading) return;
      this.#load.told(engine.hasSkeleton);
      if (engine.hasSkeleton) engine.send({ op: "attach", weights_path });
      else engine.send({ ...this.skeleton, op: "load", weights_path });
    } catch (error) {
      this.#fail(readError(error, this.#options.checkpoint.directory));
    }
  }

  /**
   * Lets weights and KV cache go and keeps the engine process with its model. The host copy stays mapped until the host
   * tier wants its memory. Errors: `instance_busy`, `state_conflict`, `engine_failed` when the engine ended instead.
   */
  async park(): Promise<void> {
    if (this.#state === "parked") return void (await this.#parkEnd);
    if (this.#state !== "ready") throw new SllmError("state_conflict", `The instance is ${this.#state}.`);
    if (!this.#options.placement.computesOnHostCopy) throw onDiscreteDevice();
    if (this.isBusy) throw new SllmError("instance_busy", "The instance is serving requests.");
    this.#move("parked"); // From here on it takes no requests.
    this.#adapters.clear();
    if (this.#parking) this.#parkEnd = this.#parking.park(true);
    if (!(await this.#parkEnd))
      throw new SllmError("engine_failed", "The engine process ended when it was parked.");
    if (this.#stopping) return;
    this.#options.onParked();
    this.#lease?.keep(() => this.#letGo());
  }

  /** The host tier evicts the copy: nothing of it may be mapped when this resolves. The lease ends with it. */
  async #letGo(): Promise<void> {
    this.#lease = null;
    await this.#parking?.park(false);
  }

  /**
   * Brings a parked instance back by a new load, which begins before this resolves; nothing happens to one that is not
   * parked. Errors: `insufficient_memory`; the instance is still parked then.
   */
  async resume(): Promise<void> {
    await this.#parkEnd;
    if (this.#state !== "parked" || this.#stopping) return;
    this.#options.onResuming();
    this.#load = new LoadRecord(this.#options.clock);
    this.#move("loading");
    void this.#attach();
  }

  async #attach(): Promise<void> {
    try {
      const weights_path = await this.#takeWeights();
      if (weights_path === null) return;
      this.#load.told(true);
      this.#engine?.send({ op: "attach", weights_path });
    } catch (error) {
      this.#fail(readError(error, this.#options.checkpoint.directory));
    }
  }

  /** Path of the host copy, being read or there; null when the instance has ended while room was made for it. */
  async #takeWeights(): Promise<string | null> {
    const kept = this.#lease?.use() === true ? this.#lease : null;
    const lease = kept ?? (await this.#options.acquire(this.#waiting()));
    if (!this.#isLoading) {
      // The engine was never told its path.
      if (kept === null) lease.release();
      return null;
    }
    this.#load.wasPresent = kept !== null || lease.was_present;
    this.#lease = lease;
    void this.#followRead(lease);
    return lease.weights_path;
  }

  /** How it waits for its turn on the disk. */
  #waiting(): AcquireOptions {
    const onPosition = (position: number) => {
      this.#load.diskPosition = position;
      this.changes.notify();
    };
    return { signal: this.#leaving.signal, onPosition, recorder: this.#load.trace };
  }

  get #isLoading(): boolean {
    return this.#state === "loading" && !this.#stopping;
  }

  /**
   * Runs a request, with an adapter when it is here; exactly one `done` or `error` event ends it. The instance must be
   * ready. Returns its number.
   */
  submit(
    settings: GenerateSettings | EmbedSettings,
    onEvent: GenerationListener,
    adapter?: CheckpointDigest,
  ): number {
    if (this.#state !== "ready" || !this.#engine) throw new Error("submit needs a ready instance");
    const request = this.#requests.open((event) => {
      if (event.type === "done" || event.type === "error") this.#endAdapterUse(request);
      onEvent(event);
    });
    if ("inputs" in settings) this.#engine.send({ op: "embed", ...settings, request });
    else if (adapter === undefined) this.#engine.send({ op: "generate", ...settings, request });
    else void this.#submitWithAdapter(request, settings, adapter);
    return request;
  }

  async #submitWithAdapter(
    request: number,
    settings: GenerateSettings,
    checkpoint: CheckpointDigest,
  ): Promise<void> {
    const leaving = new AbortController();
    this.#awaitsAdapter.set(request, leaving);
    try {
      const use = await this.#adapters.use(checkpoint, leaving.signal);
      if (!this.#requests.has(request)) {
        use.release();
        return;
      }
      this.#awaitsAdapter.delete(request);
      this.#adapterUses.set(request, use);
      this.#engine?.send({ op: "generate", ...settings, adapter: use.number, request });
    } catch (thrown) {
      const { code, message } = toSllmError(thrown);
      this.#requests.deliver({ type: "error", request, error: { code, message } });
    }
  }

  #endAdapterUse(request: number): void {
    this.#adapterUses.get(request)?.release();
    this.#adapterUses.delete(request);
    this.#awaitsAdapter.get(request)?.abort();
    this.#awaitsAdapter.delete(request);
  }

  #bookAdapters(bytes: number): void {
    this.#options.adapters.book(bytes);
    const { memory_limit_bytes: limit, request } = this.#options;
    const more = Math.max(0, bytes - (request.adapter_bytes ?? 0));
    if (limit !== null) this.#engine?.send({ op: "limit", private_bytes: limit + more });
  }

  /** Tells `onHeld` whenever a request is held, with all that the engine has of it computed. */
  followHeld(request: number, onHeld: HeldListener): void {
    this.#requests.followHeld(request, onHeld);
  }

  /** Holds a request: it draws no token until `extend` lets it go. Nothing when it has ended. */
  hold(request: number): void {
    if (this.#requests.has(request)) this.#engine?.send({ op: "hold", request });
  }

  /** Gives a held request output from elsewhere, and lets it `go` on. Nothing when it has ended. */
  extend(request: number, tokens: readonly number[], go: boolean): void {
    if (this.#requests.has(request)) this.#engine?.send({ op: "extend", request, tokens: [...tokens], go });
  }

  /** Rows of its KV cache, where engines of equal fingerprint and checkpoint can take them; null where not. */
  get kv(): EngineKv | null {
    return this.#kv;
  }

  /** Saves rows of a request to a file, or loads them from one; null when it has ended. */
  moveKv(request: number, what: KvMove): Promise<KvOutcome | null> {
    const outcome = this.#requests.nextKv(request);
    if (this.#requests.has(request)) this.#engine?.send({ ...what, request });
    return outcome;
  }

  /** Asks the engine to end a request; its `error` event with code `cancelled` follows unless it was done before. */
  cancel(request: number): void {
    if (this.#awaitsAdapter.has(request)) {
      const error = {
        code: "cancelled",
        message: "The request was cancelled while it waited for its adapter.",
      } as const;
      this.#requests.deliver({ type: "error", request, error });
    } else if (this.#requests.has(request)) this.#engine?.send({ op: "cancel", request });
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
    this.#leaving.abort();
    if (this.#state === "ready") this.#move("draining");
    if (this.#state === "loading") {
      this.#error = { code: "cancelled", message: "The instance was stopped while it was loading." };
      this.#traceEnd("stopped");
    }
    this.#requests.endAll({ code: "worker_unavailable", message: "The instance was stopped." });
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
    if (this.#stopping || !["loading", "ready", "parked"].includes(this.#state)) return;
    this.#error = error;
    this.#leaving.abort();
    if (this.#state === "loading") this.#traceEnd("failed");
    this.#requests.endAll(requestError);
    if (this.#engineEnded || !this.#engine) this.#release();
    else this.#engine.kill();
    this.#move("failed");
  }

  #traceEnd(outcome: LoadTrace["outcome"]): void {
    const { checkpoint, onLoadEnded } = this.#options;
    const { trace } = this.#load;
    if (this.#lease) trace.noteRead(this.#lease, this.#load.wasPresent);
    onLoadEnded(
      trace.finish(this.request, checkpoint.manifest.weights.bytes, { outcome, error: this.#error }),
    );
  }

  /** Lets the host copy and the booked memory go, once. */
  #release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#adapters.clear();
    this.#options.onReleased();
    this.#endLease();
  }

  #endLease(): void {
    this.#lease?.release();
    this.#lease = null;
  }

  async #expectHello(): Promise<void> {
    if (await settlesInTime(this.#hello.promise, this.#options.clock, limits.engine_hello_ms)) return;
    const message = `The engine process did not start within ${limits.engine_hello_ms} ms.`;
    this.#fail({ code: "model_load_failed", message });
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

  /** What it should do can be done elsewhere; should it come back, it is told to let these requests go. */
  #onSilence(): void {
    const message = `The engine has not answered for ${limits.engine_silence_ms} ms.`;
    for (const request of this.#requests.numbers) this.#engine?.send({ op: "cancel", request });
    this.#requests.endAll({ code: "engine_silent", message });
  }

  #onMessage(message: EngineMessage): void {
    this.#silence.heard(message.type === "beat");
    switch (message.type) {
      case "hello":
        this.#load.hello();
        this.#hello.resolve();
        break;
      case "beat":
        this.#watchdog.heard(message.activity);
        if (message.activity) {
          const { progress: _, computing: __, ...activity } = message.activity;
          this.#activity = activity;
        }
        break;
      case "warm":
      case "built":
        // The answer to whoever kept the process in reserve; it came after the load began.
        break;
      case "ready":
        this.#load.uploaded(message.upload ?? null);
        this.#fingerprint = message.fingerprint ?? null;
        this.#kv = message.kv ?? null;
        this.#load.built(message, this.#engine?.hasSkeleton === true);
        this.#readyWhenComplete();
        break;
      case "parked":
        this.#parking?.onParked();
        break;
      case "adapter_added":
      case "adapter_refused":
        this.#adapters.onAnswer(message);
        break;
      case "failed":
        this.#fail(loadFailure(message.error, this.#lease?.status().failure, this.#options.checkpoint));
        break;
      default:
        this.#requests.deliver(message);
    }
  }

  /** Ready is an engine with a model and a host copy with all its bytes checked. */
  #readyWhenComplete(): void {
    const status = this.#lease?.status();
    if (!this.#isLoading || !this.#load.isBuilt || status?.state !== "ready") return;
    this.#load.finish(status);
    this.#traceEnd("ready");
    if (!this.#options.placement.computesOnHostCopy) this.#endLease();
    this.#move("ready");
  }

  #stalled(message: string): void {
    const wasLoading = this.#state === "loading";
    const lines = this.#engine?.lastLines() ?? [];
    this.#fail(engineFailure(message, lines, wasLoading), engineFailure(message, [], wasLoading));
  }

  #onEnd(end: EngineEnd): void {
    this.#engineEnded = true;
    this.#watchdog.end();
    this.#silence.end();
    this.#parking?.onEnd();
    this.#hello.resolve();
    const wasLoading = this.#state === "loading";
    this.#fail(engineEndError(end, wasLoading), engineEndError({ ...end, last_lines: [] }, wasLoading));
    if (this.#state === "failed") this.#release();
  }
}
