/**
 * Requests that may be read again: written down before anybody works on them, driven whether somebody reads them or not,
 * found again by any gateway at their worker or in the store. Longer than other files because all of that is one table.
 */
import type { GenerationOrigin, TokensEvent } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { Clock, Log, StateStore, StoredGeneration, WorkerClient } from "../ports.ts";
import { type Dispatcher, type Driven, describe } from "./dispatcher.ts";
import { foundGeneration, newGeneration } from "./generation.ts";
import { LiveGeneration, type ReadFrom } from "./live-generation.ts";
import { replay } from "./replay.ts";
import type { TokenBatches } from "./token-batches.ts";
import type { GenerationRequest, GenerationRun, RequestEntry } from "./updates.ts";
import { fromSettings, toSettings } from "./worker-request.ts";

export interface ResumablesDeps {
  readonly dispatcher: Dispatcher;
  readonly store: Pick<
    StateStore,
    "beginGeneration" | "getStored" | "getGeneration" | "findKey" | "moveGenerations"
  >;
  readonly workers: Pick<WorkerClient, "cancel">;
  readonly fleet: Fleet;
  readonly batches: TokenBatches;
  readonly clock: Clock;
  readonly log: Log;
  readonly gateway_id: string;
}

/** How a request may be read again. */
export interface Resumable {
  /** How long it goes on without a reader; null: to its end. */
  readonly resume_ms: number | null;
  readonly idempotency: { readonly key: string; readonly body_digest: string } | null;
}

/** A run, and what the client gets of it where that is known. */
export interface FoundRun {
  readonly run: GenerationRun;
  readonly origin: GenerationOrigin | null;
  readonly logprobs: boolean;
}

export interface Wanted extends ReadFrom {
  readonly generation_id: GenerationId;
  readonly tenant: string;
}

/** How long a generation that ended is kept here for readers that come late; afterwards they read the store. */
const keptEnded_ms = 5_000;

export class Resumables {
  readonly #deps: ResumablesDeps;
  readonly #lives = new Map<GenerationId, LiveGeneration>();
  readonly #drivers = new Map<GenerationId, Driven["driver"]>();

  constructor(deps: ResumablesDeps) {
    this.#deps = deps;
  }

  /**
   * Begins a request that may be read again, or finds the one that its key stands for. Errors: as of a dispatch,
   * `idempotency_mismatch` where the key stands for another request, `state_unavailable`.
   */
  async begin(
    asked: GenerationRequest,
    entry: RequestEntry,
    { resume_ms, idempotency }: Resumable,
  ): Promise<FoundRun> {
    const { dispatcher, store, clock, gateway_id } = this.#deps;
    const { tenant } = entry;
    if (idempotency !== null) {
      const first = await store.findKey(tenant, idempotency.key);
      if (first !== null) return await this.#again(first, idempotency.body_digest, tenant);
    }
    const arrived_ms = clock.monotonicMs();
    const created_at_ms = clock.wallMs();
    const { target, request } = await dispatcher.aim(asked);
    const { model_id } = request;
    const generation_id = dispatcher.newId();
    const described = describe(request, entry, created_at_ms);
    if ("inputs" in described) throw new Error("vectors are not read again");
    const kept = { ...described, grace_ms: Math.max(limits.orphan_grace_ms, resume_ms ?? limits.resume_ms) };
    const row = { generation_id, model_id, created_at_ms, owner: gateway_id, tenant, resume_ms };
    const begun = await store.beginGeneration({ ...row, settings: toSettings(kept), idempotency });
    if (!begun.begun) return await this.#again(begun, idempotency?.body_digest ?? "", tenant);
    const cancel = new AbortController();
    const state = newGeneration(generation_id, model_id, arrived_ms);
    const run = { created_at_ms, signal: cancel.signal, isShared: true };
    const driveEntry = { ...entry, model_id, arrived_ms };
    const driven = dispatcher.drive({ ...run, state, request: kept }, driveEntry, target);
    const live = this.#bringToLife(driven, { tenant, resume_ms, cancel });
    return found(live, { after: -1, seen_worker: null }, kept);
  }

  /** Throws `idempotency_mismatch` where the key stands for another request. */
  async checkKey(tenant: string, { key, body_digest }: NonNullable<Resumable["idempotency"]>): Promise<void> {
    const first = await this.#deps.store.findKey(tenant, key);
    if (first !== null) refuseOther(first.body_digest, body_digest);
  }

  /** A run that goes on after a token. Errors: `not_found`, `invalid_request` beyond the end, `generation_lost`. */
  async open(wanted: Wanted): Promise<FoundRun> {
    const { generation_id, tenant } = wanted;
    const here = this.#lives.get(generation_id);
    if (here !== undefined) {
      if (here.tenant !== tenant) throw unknown(generation_id);
      const settings = (await this.#stored(generation_id))?.record.settings;
      return found(here, wanted, settings === undefined ? null : fromSettings(settings));
    }
    const stored = await this.#stored(generation_id);
    if (stored === null) return this.#openUnstored(wanted);
    if (stored.record.tenant !== tenant) throw unknown(generation_id);
    const request = fromSettings(stored.record.settings);
    if (stored.row.finished_at !== null) {
      const run = { generation_id, updates: replay(stored, wanted) };
      return { run, origin: request?.origin ?? null, logprobs: request?.sampling.top_logprobs !== undefined };
    }
    return found(this.#findLive(stored, wanted.seen_worker), wanted, request);
  }

  /** Goes on with a generation that has lost its gateway, whether somebody reads it or not. */
  async adopt(generation_id: GenerationId): Promise<void> {
    const stored = await this.#stored(generation_id);
    if (stored === null || stored.row.finished_at !== null || this.#lives.has(generation_id)) return;
    this.#findLive(stored, null);
  }

  /** Takes over what is read here and has lost its gateway. */
  attend(): void {
    for (const driver of this.#drivers.values()) void driver.takeOver();
  }

  /** True when it ends now; false when it had ended. Errors: `not_found`. */
  async cancel(generation_id: GenerationId, tenant: string): Promise<boolean> {
    const { store, workers, fleet } = this.#deps;
    const stored = await store.getStored(generation_id);
    if (stored === null || stored.record.tenant !== tenant) throw unknown(generation_id);
    const { row } = stored;
    if (row.finished_at !== null) return false;
    this.#lives.get(generation_id)?.cancel();
    let { worker_id } = row;
    for (let hops = 0; worker_id !== null && hops < limits.placement_attempts; hops++) {
      const worker = fleet.addressOfWorker(worker_id);
      if (worker === null) break;
      const { moved } = await workers.cancel(worker, generation_id).catch(() => ({ moved: undefined }));
      worker_id = moved?.worker_id ?? null;
    }
    const from = ["queued", "running"] as const;
    await store.moveGenerations([
      { generation_id, from, to: "cancelled", reason: "cancelled by its client" },
    ]);
    return true;
  }

  async #again(
    first: { readonly generation_id: GenerationId; readonly body_digest: string },
    body_digest: string,
    tenant: string,
  ): Promise<FoundRun> {
    refuseOther(first.body_digest, body_digest);
    return await this.open({ generation_id: first.generation_id, tenant, after: -1, seen_worker: null });
  }

  async #stored(generation_id: GenerationId): Promise<StoredGeneration | null> {
    try {
      return await this.#deps.store.getStored(generation_id);
    } catch (error) {
      // The worker named in the event id knows it without a row.
      if (error instanceof SllmError && error.code === "state_unavailable") return null;
      throw error;
    }
  }

  /** Only its worker knows it: read there for as long as the reader stays, and gone on with by claim where it is lost. */
  #openUnstored({ generation_id, tenant, after, seen_worker }: Wanted): FoundRun {
    if (seen_worker === null) throw unknown(generation_id);
    const { dispatcher, clock } = this.#deps;
    const cancel = new AbortController();
    const arrived_ms = clock.monotonicMs();
    const at = { worker_id: seen_worker, instance_id: "", epoch: 1 };
    const state = foundGeneration(generation_id, "", arrived_ms, { at, epoch: 1, next_index: after + 1 });
    const seen = { worker_id: seen_worker, last_index: after };
    const entry = { tenant, priority: "normal", deadline_ms: null, model_id: "", arrived_ms } as const;
    const run = {
      state,
      request: null,
      created_at_ms: clock.wallMs(),
      signal: cancel.signal,
      isShared: false,
      seen,
      tenant,
    };
    const { updates } = dispatcher.drive(run, entry, null);
    return { run: { generation_id, updates: leaving(updates, cancel) }, origin: null, logprobs: false };
  }

  /** It runs elsewhere, or will: read there, and gone on with by claim where it is lost. */
  #findLive(stored: StoredGeneration, seen_worker: WorkerId | null): LiveGeneration {
    const { dispatcher, clock } = this.#deps;
    const { row, record, events } = stored;
    const { generation_id, model_id, epoch, worker_id, instance_id } = row;
    const cancel = new AbortController();
    const arrived_ms = clock.monotonicMs();
    const known_at = worker_id === null || instance_id === null ? null : { worker_id, instance_id, epoch };
    // Its gateway may have died before it wrote down where it runs: its client knows.
    const at = known_at ?? (seen_worker === null ? null : { worker_id: seen_worker, instance_id: "", epoch });
    const next_index = nextIndex(events);
    const state = foundGeneration(generation_id, model_id, arrived_ms, {
      at,
      epoch,
      next_index,
      hops: record.hops,
    });
    const request = fromSettings(record.settings);
    const deadline_ms = next_index > 0 ? null : leftOf(request?.origin ?? null, clock.wallMs());
    const entry = { tenant: record.tenant, priority: "normal", deadline_ms, model_id, arrived_ms } as const;
    const run = { created_at_ms: row.created_at.getTime(), signal: cancel.signal, isShared: true };
    const known = { told: events, prompt: record.prompt, owner: row.owner };
    const driven = dispatcher.drive({ ...run, ...known, state, request }, entry, null);
    return (
      this.#lives.get(generation_id) ??
      this.#bringToLife(driven, { tenant: record.tenant, resume_ms: record.resume_ms, cancel })
    );
  }

  #bringToLife(
    { driver, updates }: Driven,
    { tenant, resume_ms, cancel }: { tenant: string; resume_ms: number | null; cancel: AbortController },
  ): LiveGeneration {
    const { clock, log, batches, dispatcher, workers, fleet } = this.#deps;
    const { generation_id, model_id } = driver.state;
    const giveUp = async () => {
      const { is_owner, worker_id, epoch } = driver.state;
      const worker = worker_id === null ? null : fleet.addressOfWorker(worker_id);
      if (is_owner && worker !== null) {
        const query = { epoch, unless_read: "1" } as const;
        const left = await workers.cancel(worker, generation_id, query).catch(() => null);
        if (left?.cancelled === false && driver.state.phase === "running") return false;
      }
      cancel.abort();
      return true;
    };
    const live = new LiveGeneration({
      ...{ generation_id, tenant, resume_ms, driven: driver, updates, giveUp, clock, log },
      cancel: () => cancel.abort(),
    });
    this.#lives.set(generation_id, live);
    this.#drivers.set(generation_id, driver);
    batches.follow(driver);
    const entry = { tenant, priority: "normal", deadline_ms: null, model_id, arrived_ms: 0 } as const;
    void live.run().then(async () => {
      await batches.finish(generation_id);
      dispatcher.end(driver, entry);
      this.#drivers.delete(generation_id);
      await clock.sleep(keptEnded_ms);
      this.#lives.delete(generation_id);
    });
    return live;
  }
}

function found(live: LiveGeneration, from: ReadFrom, request: GenerationRequest | null): FoundRun {
  const run = { generation_id: live.generation_id, updates: live.read(from) };
  return { run, origin: request?.origin ?? null, logprobs: request?.sampling.top_logprobs !== undefined };
}

/** The reader's leaving is an end of the reading, whatever it waits for. */
async function* leaving<T>(
  updates: AsyncGenerator<T, void>,
  cancel: AbortController,
): AsyncGenerator<T, void> {
  try {
    yield* updates;
  } finally {
    cancel.abort();
  }
}

/** Of the time that the request had until it must have an instance; null where it named none. */
function leftOf(origin: GenerationOrigin | null, now_ms: number): number | null {
  const { deadline_ms = null, created_at_ms = 0 } = origin ?? {};
  return deadline_ms === null ? null : Math.max(0, created_at_ms + deadline_ms - now_ms);
}

function nextIndex(events: readonly TokensEvent[]): number {
  const last = events.at(-1);
  return last === undefined ? 0 : last.first_index + last.tokens.length;
}

function refuseOther(first: string, body_digest: string): void {
  if (first === body_digest) return;
  throw new SllmError("idempotency_mismatch", "This key was used for another request.", {
    param: "Idempotency-Key",
  });
}

function unknown(generation_id: GenerationId): SllmError {
  return new SllmError("not_found", `The generation '${generation_id}' is not known.`);
}
