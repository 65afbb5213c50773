/** A generation that moves between two engines that step by hand, over a network that loses calls and answers. */
import { expect } from "bun:test";
import type { GenerationPlace, TokensEvent } from "../../schema/cluster/generate.ts";
import type { HandOverResponse, MoveEvent } from "../../schema/cluster/moves.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { EngineRun } from "../../worker/generations/engine-run.ts";
import { Arrivals } from "../../worker/moves/arrivals.ts";
import { Departure, type LeavingStream } from "../../worker/moves/departure.ts";
import type { Destination } from "../../worker/moves/destination.ts";
import type { KvFiles } from "../../worker/moves/kv-files.ts";
import type { KvSource } from "../../worker/moves/kv-sender.ts";
import { endOf } from "../../worker/moves/told.ts";
import { ManualClock, settle } from "./manual-clock.ts";
import {
  checkpoint,
  generation_id,
  instance_id,
  SteppedEngine,
  settings,
  tokenAt,
} from "./stepped-engine.ts";

/** How one call to the destination fails; null: not at all. */
export type Fault = "request" | "answer" | null;

/** Half a part for each token. */
export const someKv = { token_bytes: limits.kv_part_bytes / 2, fingerprint: "llama" };
const noFiles: KvFiles = {
  create: () =>
    Promise.resolve({
      path: "rows",
      read: () => Promise.resolve(new Uint8Array(8)),
      write: () => Promise.resolve(),
      remove: () => Promise.resolve(),
    }),
};

/** The destination's worker: its arrivals, and the generation once it is one there. */
class There {
  readonly engine: SteppedEngine;
  readonly arrivals: Arrivals;
  told: TokensEvent[] = [];
  ended = false;
  runs = false;
  fenced = 0;

  constructor(clock: ManualClock, most: number) {
    this.engine = new SteppedEngine(most);
    const checkEpoch = (_: string, epoch: number) => {
      if (epoch < this.fenced || this.runs) throw new SllmError("stale_generation", "an old epoch");
    };
    this.arrivals = new Arrivals({
      findInstance: () => this.engine,
      checkEpoch,
      isAccepting: () => true,
      adopt: (request) => {
        checkEpoch(generation_id, request.epoch);
        this.runs = true;
        this.told = [...(request.history?.told ?? [])];
        return (event) => {
          if (event.type === "tokens") this.told.push(event);
          if (event.type === "done") this.ended = true;
        };
      },
      kvFiles: noFiles,
      has: (_, epoch) => this.runs && epoch === 2,
      clock,
    });
  }
}

class Source implements LeavingStream {
  readonly engine: SteppedEngine;
  readonly checkpoint = checkpoint;
  readonly events: TokensEvent[] = [];
  readonly run: EngineRun;
  readonly cached_tokens = 0;
  readonly kv: KvSource;
  hasEnded = false;
  movedTo: GenerationPlace | null = null;
  readonly #adapter: CheckpointDigest | undefined;
  #grown: (() => void)[] = [];

  constructor(most: number, adapter: CheckpointDigest | undefined) {
    this.#adapter = adapter;
    this.engine = new SteppedEngine(most);
    const number = this.engine.submit({ ...settings, resume: { prompt: [1, 2, 3], output: [] } }, (event) => {
      if (event.type === "tokens") this.events.push(event);
      if (event.type === "done" || event.type === "error") this.hasEnded = true;
      for (const wake of this.#grown.splice(0)) wake();
    });
    this.run = new EngineRun(this.engine, number);
    this.kv = {
      ...someKv,
      file: () => noFiles.create(),
      save: (path, from, to) => this.run.moveKv({ op: "save_kv", path, from, to }),
    };
  }

  record() {
    const hops = [{ worker_id: "w-0000000000000001", epoch: 1, first_index: 0 }];
    const { prompt, sampling, stop, max_tokens, ignore_eos } = settings;
    const adapter = this.#adapter === undefined ? {} : { adapter: this.#adapter };
    const kept = { prompt, sampling, stop: [...stop], max_tokens, ignore_eos, ...adapter };
    const run = { generation_id, epoch: 1, owner: null, instance_id, hops };
    return { ...run, settings: kept, prompt: [1, 2, 3], first_index: 0 };
  }
  get nextIndex(): number {
    const last = this.events.at(-1);
    return last === undefined ? 0 : endOf(last);
  }
  told(from: number): TokensEvent[] {
    return this.events.filter((event) => endOf(event) > from);
  }
  async grown(index: number, signal: AbortSignal): Promise<void> {
    while (this.nextIndex < index && !this.hasEnded && !signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#grown.push(resolve);
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }
  async hold(): Promise<boolean> {
    if (this.hasEnded) return false;
    await Promise.race([this.run.hold(), this.grown(Number.MAX_SAFE_INTEGER, new AbortController().signal)]);
    return !this.hasEnded;
  }
  goOn(): void {
    this.run.go();
  }
  leave(to: GenerationPlace): void {
    this.movedTo = to;
    this.run.cancel();
  }
}

interface SceneOptions {
  readonly most?: number;
  readonly faults?: Fault[];
  readonly gap_tokens?: number;
  readonly rounds?: number;
  readonly with_kv?: boolean;
  /** That the generation answers with. */
  readonly adapter?: CheckpointDigest;
}

export class MoveScene {
  readonly clock = new ManualClock();
  readonly source: Source;
  readonly there: There;
  readonly seen: MoveEvent[] = [];
  readonly departure: Departure;
  faults: Fault[];
  /** No hand-over gets through to the destination. */
  isCutOff = false;
  handOver: HandOverResponse | null = null;
  #hasBegun = false;

  constructor(options: SceneOptions = {}) {
    const { most = 100, faults = [], gap_tokens = 2, rounds = 16, with_kv = false } = options;
    this.faults = faults;
    this.source = new Source(most, options.adapter);
    this.there = new There(this.clock, most);
    const worker_id = "w-0000000000000002";
    const to = { worker_id, url: "http://127.0.0.1:1", incarnation: "0123456789abcdef", instance_id };
    this.departure = new Departure({
      stream: this.source,
      request: { protocol_version: 1, to, epoch: 2, gap_tokens, rounds, with_kv },
      destination: this.#network(this.there.arrivals),
      clock: this.clock,
      onEvent: (event) => {
        this.seen.push(event);
        if (event.type === "ready") this.#handOver();
      },
    });
  }

  #handOver(): void {
    void settle().then(async () => {
      this.handOver = await this.departure
        .handOver({ protocol_version: 1, epoch: 2, owner: null })
        .catch(() => null);
    });
  }

  #network(arrivals: Arrivals): Destination {
    const call = async <T>(what: () => Promise<T> | T): Promise<T> => {
      const fault = this.faults.shift() ?? null;
      await settle();
      if (fault === "request") throw new SllmError("worker_unavailable", "the call was lost");
      const answer = await what();
      if (fault === "answer") throw new SllmError("worker_unavailable", "the answer was lost");
      return answer;
    };
    return {
      open: (request) => call(() => ({ generation_id, arrived: false, takes_kv: arrivals.open(request) })),
      kv: (id, part, rows) => call(() => arrivals.takeKv(id, part, rows)),
      round: (id, round) => call(() => arrivals.round(id, round)),
      go: (id, last) => {
        if (this.isCutOff) this.faults.unshift("request");
        return call(() => arrivals.go(id, last));
      },
      drop: (id, epoch) => call(() => void arrivals.drop(id, epoch)),
    };
  }

  begin(): void {
    if (!this.#hasBegun) void this.departure.run();
    this.#hasBegun = true;
  }

  /** Both engines step and time passes, until the source has settled what becomes of it. */
  async play(turns = 200): Promise<void> {
    this.begin();
    for (let i = 0; i < turns; i++) {
      this.source.engine.step();
      this.there.engine.step();
      await this.clock.advance(20);
    }
  }

  /** All tokens that a reader gets that follows the redirect. */
  tokens(): number[] {
    const events = this.source.movedTo === null ? this.source.events : this.there.told;
    return events.flatMap(({ tokens }) => tokens.map(({ token }) => token));
  }

  /** Exactly one of both has run to its end, over the very tokens of an undisturbed run. */
  check(most: number): void {
    const moved = this.source.movedTo !== null;
    expect(this.there.runs).toBe(moved);
    expect(moved ? this.there.ended : this.source.hasEnded).toBe(true);
    expect(this.tokens()).toEqual(Array.from({ length: most }, (_, i) => tokenAt(i)));
  }
}
