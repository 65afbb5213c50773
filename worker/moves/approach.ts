/**
 * Brings a destination close to a generation that goes on here: everything so far first, then every token as it is made,
 * and rounds that tell how far the destination has computed.
 */
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import type { MoveEvent, MoveRequest } from "../../schema/cluster/moves.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { Clock } from "../ports.ts";
import type { LeavingStream } from "./departure.ts";
import type { Destination } from "./destination.ts";
import { type KvSource, sendKv } from "./kv-sender.ts";

export interface ApproachOptions {
  readonly stream: LeavingStream;
  readonly request: MoveRequest;
  readonly destination: Destination;
  readonly clock: Clock;
  /** What became of the KV cache, every round, and once that it is close enough. */
  readonly onEvent: (event: Extract<MoveEvent, { type: "kv" | "round" | "ready" }>) => void;
}

export class Approach {
  readonly #options: ApproachOptions;
  readonly #stopping = new AbortController();
  /** The destination has said something. */
  readonly #heard = new Changes();
  #isReady = false;
  #opened = false;
  #rounds = 0;
  /** Of the KV cache that were sent. */
  #bytes = 0;
  /** Output tokens that the destination has said to have. */
  #acknowledged = 0;
  /** ... and to have computed; null before the prompt is. */
  #computed: number | null = null;
  /** Of prompt and output, found there, so that nobody computed them. */
  #cached = 0;

  constructor(options: ApproachOptions) {
    this.#options = options;
  }

  /** Little enough is missing. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** The destination may have something of it. */
  get hasOpened(): boolean {
    return this.#opened;
  }

  /** Output tokens that the destination has for certain. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  get signal(): AbortSignal {
    return this.#stopping.signal;
  }

  /** Until it is stopped or the generation has ended. Rejects when the destination does not get it. */
  async run(): Promise<void> {
    await this.#open(this.#options.request.with_kv === true);
    await Promise.all([this.#send(), this.#follow()]);
  }

  /** Nothing more is sent, and nothing told, from now on. */
  stop(): void {
    this.#stopping.abort();
    this.#heard.notify();
  }

  get #goesOn(): boolean {
    return !this.#stopping.signal.aborted;
  }

  async #open(with_kv: boolean): Promise<void> {
    const { stream, request, destination } = this.#options;
    const { settings, prompt, hops, generation_id, owner } = stream.record();
    if (prompt === null) throw new SllmError("state_conflict", "The generation has not begun yet.");
    const told = stream.told(0);
    if ((told[0]?.first_index ?? 0) > 0) {
      throw new SllmError("state_conflict", "The generation is too long: its beginning is not kept.");
    }
    const output = told.flatMap(({ tokens }) => tokens.map(({ token }) => token));
    const { cached_tokens, checkpoint, kv } = stream;
    // The last one's rows are computed with the token after it.
    const tokens = prompt.length + output.length - 1;
    const sends = with_kv && kv !== null && tokens > 0;
    this.#opened = true;
    const { takes_kv } = await destination.open({
      ...settings,
      protocol_version: protocolVersion,
      generation_id,
      epoch: request.epoch,
      ...(owner === null ? {} : { owner }),
      instance_id: request.to.instance_id,
      resume: { prompt, output },
      history: { hops, told },
      checkpoint,
      ...(sends ? { kv: { fingerprint: kv.fingerprint, tokens } } : {}),
      ...(cached_tokens > 0 ? { cached_tokens } : {}),
    });
    this.#acknowledged = output.length;
    // Where the rows do not get there it begins anew, and computes them.
    if (sends && takes_kv === true && !(await this.#sendKv(kv, tokens))) await this.#open(false);
  }

  /** False when nothing came of it. */
  async #sendKv(source: KvSource, tokens: number): Promise<boolean> {
    const { stream, request, destination, clock, onEvent } = this.#options;
    const { generation_id } = stream.record();
    const began_ms = clock.monotonicMs();
    const about = { source, destination, generation_id, epoch: request.epoch, tokens };
    try {
      this.#bytes = await sendKv({ ...about, signal: this.#stopping.signal });
    } catch {
      return !this.#goesOn;
    }
    const kv_ms = clock.monotonicMs() - began_ms;
    if (this.#goesOn) onEvent({ type: "kv", bytes: this.#bytes, kv_tokens: tokens, kv_ms });
    return true;
  }

  /** Every token goes there as soon as it is made, so that a hand-over finds little left to send. */
  async #send(): Promise<void> {
    const { stream } = this.#options;
    while (this.#goesOn) {
      await stream.grown(this.#acknowledged + 1, this.#stopping.signal);
      if (stream.nextIndex === this.#acknowledged) return;
      if (this.#goesOn) await this.#call(stream.told(this.#acknowledged), 0);
    }
  }

  /** Rounds, until it can be handed over: what is there at the begin of one is computed at its end. */
  async #follow(): Promise<void> {
    const { clock, onEvent } = this.#options;
    while (this.#goesOn && !this.#isReady) {
      const began_ms = clock.monotonicMs();
      const before = this.#tokens();
      await this.#catchUp();
      if (!this.#goesOn) return;
      this.#rounds++;
      const found = before === 0 ? this.#cached : 0;
      const round_tokens = Math.max(0, this.#tokens() - before - found);
      const round_ms = clock.monotonicMs() - began_ms;
      onEvent({ type: "round", ...this.#progress(), round_tokens, round_ms });
      this.#judge();
    }
  }

  async #catchUp(): Promise<void> {
    const wanted = this.#options.stream.nextIndex;
    while (this.#goesOn && (this.#computed ?? -1) < wanted) {
      if (this.#acknowledged < wanted) await this.#heard.wait();
      else await this.#call([], limits.arrival_wait_ms);
    }
  }

  async #call(told: TokensEvent[], wait_ms: number): Promise<void> {
    const { stream, destination, request } = this.#options;
    const round = { protocol_version: protocolVersion, epoch: request.epoch, told, wait_ms };
    const progress = await destination.round(stream.record().generation_id, round);
    // Two calls may be under way, and the answer of the earlier one come last.
    this.#acknowledged = Math.max(this.#acknowledged, progress.completion_tokens);
    this.#cached = Math.max(this.#cached, progress.cached_tokens ?? 0);
    if (progress.computed_tokens !== null) {
      this.#computed = Math.max(this.#computed ?? 0, progress.computed_tokens);
    }
    this.#heard.notify();
  }

  /** Whether little enough is missing, or so much after so many rounds that it never will be. */
  #judge(): void {
    const { request, stream, onEvent } = this.#options;
    if (stream.hasEnded) return;
    const { gap_tokens } = this.#progress();
    const isLast = this.#rounds >= request.rounds;
    const enough = isLast ? Math.max(request.gap_tokens, limits.move_last_gap_tokens) : request.gap_tokens;
    if (gap_tokens <= enough) {
      this.#isReady = true;
      onEvent({ type: "ready", ...this.#progress() });
    } else if (isLast) {
      const text = `After ${this.#rounds} rounds ${gap_tokens} tokens were missing at the destination.`;
      throw new SllmError("state_conflict", text);
    }
  }

  #progress() {
    const gap_tokens = this.#options.stream.nextIndex - (this.#computed ?? 0);
    return { rounds: this.#rounds, tokens: this.#tokens(), bytes: this.#bytes, gap_tokens };
  }

  /** Prompt and output tokens that the destination has computed. */
  #tokens(): number {
    if (this.#computed === null) return 0;
    return (this.#options.stream.record().prompt?.length ?? 0) + this.#computed;
  }
}
