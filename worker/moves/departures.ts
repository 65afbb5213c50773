/** Generations that leave this worker: begun, handed over and let go on at a gateway's word. */
import type {
  GoOnRequest,
  HandOverRequest,
  HandOverResponse,
  MoveDestination,
  MoveEvent,
  MoveRequest,
  RunningGeneration,
} from "../../schema/cluster/moves.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, GenerationId, InstanceId, WorkerId } from "../../schema/ids.ts";
import type { Generation } from "../generations/generation.ts";
import type { GenerationRegistry } from "../generations/registry.ts";
import type { Clock, EventReader } from "../ports.ts";
import { Departure, type LeavingStream } from "./departure.ts";
import type { Destination } from "./destination.ts";
import type { KvFiles } from "./kv-files.ts";
import type { KvSource } from "./kv-sender.ts";
import { MoveEvents } from "./move-events.ts";

export interface DeparturesOptions {
  readonly worker_id: WorkerId;
  readonly generations: Pick<GenerationRegistry, "find" | "running" | "raise">;
  /** Of an instance of this worker. */
  readonly checkpointOf: (instance_id: InstanceId) => CheckpointDigest;
  readonly openDestination: (to: MoveDestination) => Destination;
  readonly kvFiles: KvFiles;
  readonly clock: Clock;
}

export class Departures {
  readonly #options: DeparturesOptions;
  readonly #leaving = new Map<GenerationId, Departure>();

  constructor(options: DeparturesOptions) {
    this.#options = options;
  }

  /** What runs here, vectors aside. */
  list(): RunningGeneration[] {
    const movable = this.#options.generations.running().filter((run) => run.canMove);
    return movable.map((run) => {
      const { generation_id, instance_id, epoch, owner, prompt, settings } = run.record();
      return {
        ...{ generation_id, instance_id, epoch, owner, completion_tokens: run.next_index },
        prompt_tokens: prompt?.length ?? null,
        ...(settings.adapter === undefined ? {} : { adapter: settings.adapter }),
        is_moving: this.#leaving.has(generation_id),
      };
    });
  }

  /** See `moveRequest`. The move is over when its reader leaves before the hand-over. */
  start(generation_id: GenerationId, request: MoveRequest): EventReader<MoveEvent> {
    const { generations, worker_id, openDestination, clock } = this.#options;
    const run = generations.find(generation_id);
    if (request.to.worker_id === worker_id) {
      throw new SllmError("state_conflict", "The generation runs on that worker already.");
    }
    if (!run.canMove || run.run === null) {
      throw new SllmError("state_conflict", "What makes vectors does not move.");
    }
    if (run.hasEnded) return endedAlready();
    if (request.epoch <= run.epoch) {
      throw new SllmError("stale_generation", `The generation is in epoch ${run.epoch} already.`);
    }
    if (this.#leaving.has(generation_id)) {
      throw new SllmError("state_conflict", "The generation is on its way already.");
    }
    const events: MoveEvents = new MoveEvents(() => departure.stop());
    const departure = new Departure({
      stream: this.#stream(run),
      request,
      destination: openDestination(request.to),
      clock,
      onEvent: (event) => events.push(event),
    });
    this.#leaving.set(generation_id, departure);
    void departure.over.then(() => this.#leaving.delete(generation_id));
    void departure.run();
    return events;
  }

  /** See `handOverRequest`. Errors: `not_found`, `stale_generation`, `state_conflict` when it is not about to go. */
  async handOver(generation_id: GenerationId, request: HandOverRequest): Promise<HandOverResponse> {
    const departure = this.#leaving.get(generation_id);
    const run = this.#options.generations.raise(generation_id, request.epoch, request.owner);
    if (departure === undefined && run.hasEnded) {
      const completion_tokens = run.next_index;
      return { outcome: "ended", completion_tokens, gap_tokens: 0, handed_over_ms: 0, error: null };
    }
    if (departure === undefined) {
      throw new SllmError("state_conflict", "The generation is not on its way anywhere.");
    }
    return await departure.handOver(request);
  }

  /** See `goOnRequest`. */
  goOn(generation_id: GenerationId, { epoch, owner }: GoOnRequest): void {
    this.#options.generations.raise(generation_id, epoch, owner);
    this.#leaving.get(generation_id)?.goOn();
  }

  #stream(run: Generation): LeavingStream {
    return {
      record: () => run.record(),
      checkpoint: this.#options.checkpointOf(run.instance_id),
      cached_tokens: run.cached_tokens,
      kv: kvSource(run, this.#options.kvFiles),
      get nextIndex() {
        return run.next_index;
      },
      get hasEnded() {
        return run.hasEnded;
      },
      told: (from) => run.told(from),
      grown: (index, signal) => grown(run, index, signal),
      hold: () => hold(run),
      goOn: () => run.run?.go(),
      leave: (to) => run.moveTo(to),
    };
  }
}

/** Adapters have numbers of their engine's, so that rows computed with one are another engine's puzzle. */
function kvSource({ run, usesAdapter }: Generation, files: KvFiles): KvSource | null {
  if (run === null || run.kv === null || usesAdapter) return null;
  return {
    ...run.kv,
    file: () => files.create(),
    save: (path, from, to) => run.moveKv({ op: "save_kv", path, from, to }),
  };
}

/** It came to its end before the move came here. */
function endedAlready(): MoveEvents {
  const events = new MoveEvents(() => undefined);
  events.push({ type: "ended" });
  return events;
}

async function grown(run: Generation, index: number, signal: AbortSignal): Promise<void> {
  const left = new Promise<void>((resolve) => {
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
  while (run.next_index < index && !run.hasEnded && !signal.aborted) {
    await Promise.race([run.changes.wait(), left]);
  }
}

/** False when it ended first: then its engine has nothing to hold. */
async function hold(run: Generation): Promise<boolean> {
  if (run.hasEnded || run.run === null) return false;
  const ended = grown(run, Number.POSITIVE_INFINITY, new AbortController().signal);
  await Promise.race([run.run.hold(), ended]);
  return !run.hasEnded;
}
