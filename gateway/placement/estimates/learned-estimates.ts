/**
 * The numbers behind the scheduler's estimates, learned from what starts and requests took: per worker, link, model and
 * device kind, from the median of the last values. Where one worker or model has not been seen yet, what others of its
 * kind took counts, then what is nominal. Shared with other gateways through the store (see estimate-sync.ts).
 */
import type { EstimateRow } from "../../../schema/db/tables.ts";
import type { ModelId, WorkerId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { type DeviceKind, deviceKinds } from "../../../schema/vocab.ts";
import type { EstimateKey, ObservedEstimate } from "../../ports.ts";
import {
  type Estimates,
  type ModelEstimates,
  nominal_answer,
  nominal_init_ms,
  nominal_migration,
  nominal_service_ms,
  type StartHow,
  type StartState,
  startHows,
} from "../../scheduler/estimates.ts";
import { type Line, median, robustLine } from "./robust.ts";
import { startDetail } from "./start-detail.ts";

/** What was seen of one quantity, the oldest first. */
interface Window {
  readonly key: EstimateKey;
  readonly values: number[];
  readonly errors: number[];
}

type KeyFields = Partial<Omit<EstimateKey, "quantity">>;

export class LearnedEstimates implements Estimates {
  readonly #windows = new Map<string, Window>();
  readonly #pending = new Map<string, Window>();
  /** What follows from the windows, until one of them changes. */
  readonly #models = new Map<ModelId, ModelEstimates>();
  readonly #links = new Map<WorkerId, Map<string, number>>();

  model(model_id: ModelId): ModelEstimates {
    const known = this.#models.get(model_id) ?? this.#modelFrom(model_id);
    this.#models.set(model_id, known);
    return known;
  }

  links(worker_id: WorkerId): ReadonlyMap<string, number> | null {
    return this.#links.get(worker_id) ?? null;
  }

  /** Takes in one value or error of a quantity; it counts at once here, and elsewhere after the next write. */
  observe(key: EstimateKey, seen: { readonly value?: number; readonly error?: number }): void {
    const values = seen.value === undefined ? nothing : [seen.value];
    const errors = seen.error === undefined ? nothing : [seen.error];
    if (!values.every(Number.isFinite) || !errors.every(Number.isFinite)) return;
    const id = textOf(key);
    this.#add(this.#windows, id, key, values, errors);
    if (this.#pending.size < limits.estimate_backlog || this.#pending.has(id)) {
      this.#add(this.#pending, id, key, values, errors);
    }
    this.#changed(key);
  }

  /** What no store knows yet. It is forgotten here: give it back to `putBack` if it could not be written. */
  takePending(): readonly ObservedEstimate[] {
    const taken = [...this.#pending.values()].map(({ key, values, errors }) => ({ ...key, values, errors }));
    this.#pending.clear();
    return taken;
  }

  putBack(observed: readonly ObservedEstimate[]): void {
    for (const { values, errors, ...key } of observed) {
      const later = this.#pending.get(textOf(key));
      this.#pending.delete(textOf(key));
      this.#add(
        this.#pending,
        textOf(key),
        key,
        [...values, ...(later?.values ?? [])],
        [...errors, ...(later?.errors ?? [])],
      );
    }
  }

  /** Makes the store's rows what is known, with what it has not been told yet. */
  replace(rows: readonly EstimateRow[]): void {
    this.#windows.clear();
    this.#models.clear();
    this.#links.clear();
    for (const { quantity, worker_id, model_id, device_kind, detail, values, errors } of rows) {
      const key = { quantity, worker_id, model_id, device_kind, detail };
      this.#add(this.#windows, textOf(key), key, values, errors);
    }
    for (const [id, { key, values, errors }] of this.#pending)
      this.#add(this.#windows, id, key, values, errors);
    for (const { key } of this.#windows.values()) this.#changed(key);
  }

  #add(
    to: Map<string, Window>,
    id: string,
    key: EstimateKey,
    values: readonly number[],
    errors: readonly number[],
  ): void {
    const window = to.get(id);
    if (window === undefined) {
      const [kept, wrong] = [values.slice(-limits.estimate_values), errors.slice(-limits.estimate_errors)];
      to.set(id, { key, values: kept, errors: wrong });
      return;
    }
    append(window.values, values, limits.estimate_values);
    append(window.errors, errors, limits.estimate_errors);
  }

  #changed(key: EstimateKey): void {
    if (key.quantity === "bandwidth" && key.model_id === "") {
      const rate = this.#median("bandwidth", key);
      const links = this.#links.get(key.worker_id) ?? new Map<string, number>();
      if (rate !== null && rate > 0) this.#links.set(key.worker_id, links.set(key.detail, rate));
    } else if (key.model_id === "") this.#models.clear();
    else this.#models.delete(key.model_id);
  }

  #values(quantity: EstimateKey["quantity"], fields: KeyFields): readonly number[] {
    return this.#windows.get(textOf(keyOf(quantity, fields)))?.values ?? [];
  }

  #median(quantity: EstimateKey["quantity"], fields: KeyFields): number | null {
    return median(this.#values(quantity, fields));
  }

  #modelFrom(model_id: ModelId): ModelEstimates {
    /** By how a start begins, then by worker: asked for every device of every decision, found once. */
    const known = new Map<number, Map<WorkerId, number>>();
    const lines = new Map<DeviceKind, Line>();
    const startMs =
      (quantity: "build" | "init", nominal: (how: StartHow) => number) =>
      (worker_id: WorkerId, device_kind: DeviceKind, start: StartState): number => {
        const code = codeOf(quantity, device_kind, start);
        const byWorker = known.get(code) ?? new Map<WorkerId, number>();
        const seen = byWorker.get(worker_id);
        if (seen !== undefined) return seen;
        const value = this.#startMs(quantity, worker_id, model_id, device_kind, start) ?? nominal(start.how);
        known.set(code, byWorker.set(worker_id, value));
        return value;
      };
    const rates = new Map<WorkerId, number | null>();
    // Every answer changes both, most decisions ask for neither.
    let service_ms: number | null = null;
    let answer: ModelEstimates["answer"] | null = null;
    const serviceMs = () => this.#median("service", { model_id }) ?? nominal_service_ms;
    const findAnswer = () => this.#answer(model_id);
    return {
      buildMs: startMs("build", () => 0),
      initMs: startMs("init", (how) => nominal_init_ms[how]),
      diskBytesPerMs: (worker_id) => {
        const seen = rates.get(worker_id);
        if (seen !== undefined) return seen;
        const rate = this.#median("bandwidth", { worker_id, model_id, detail: "disk" });
        rates.set(worker_id, rate);
        return rate;
      },
      get service_ms() {
        service_ms ??= serviceMs();
        return service_ms;
      },
      get answer() {
        answer ??= findAnswer();
        return answer;
      },
      migrationMs: (device_kind, tokens, generations) => {
        const { slope, base } = lines.get(device_kind) ?? this.#prefillLine(model_id, device_kind);
        lines.set(device_kind, { slope, base });
        return slope * tokens + base * generations;
      },
    };
  }

  /**
   * Of this worker and model, of the model anywhere, of any model on such a device; of each busy hosts or quiet ones. How
   * long a model takes to build is rather its own matter, what comes after that a matter of where its bytes come from.
   */
  #startMs(
    quantity: "build" | "init",
    worker_id: WorkerId,
    model_id: ModelId,
    device_kind: DeviceKind,
    start: StartState,
  ): number | null {
    const scopes = [{ worker_id, model_id }, { model_id }, {}];
    const sources = [start.is_in_memory, !start.is_in_memory];
    const orders =
      quantity === "build"
        ? scopes.flatMap((about) => sources.map((is_in_memory) => ({ about, is_in_memory })))
        : sources.flatMap((is_in_memory) => scopes.map((about) => ({ about, is_in_memory })));
    for (const { about, is_in_memory } of orders) {
      for (const is_beside of [start.is_beside, !start.is_beside]) {
        const detail = startDetail({ how: start.how, is_in_memory, is_beside });
        const value = this.#median(quantity, { ...about, device_kind, detail });
        if (value !== null) return value;
      }
    }
    return null;
  }

  #answer(model_id: ModelId): ModelEstimates["answer"] {
    const pairs = pairsOf(this.#values("decode", { model_id }));
    const tokens = median(pairs.map(([count]) => count));
    const token_ms = median(pairs.map(([count, ms]) => ms / count));
    return tokens === null || token_ms === null ? nominal_answer : { tokens, token_ms };
  }

  #prefillLine(model_id: ModelId, device_kind: DeviceKind): Line {
    const prompts = pairsOf(this.#values("prefill", { model_id, device_kind }));
    const moves = pairsOf(this.#values("prefill", { model_id, device_kind, detail: moveDetail }));
    return (
      robustLine(moves) ??
      robustLine(prompts) ?? { slope: nominal_migration.ms_per_token, base: nominal_migration.base_ms }
    );
  }
}

/** One number for each way a start begins. */
function codeOf(quantity: "build" | "init", kind: DeviceKind, start: StartState): number {
  const { how, is_in_memory, is_beside } = start;
  const begin = startHows.indexOf(how) * deviceKinds.length + deviceKinds.indexOf(kind);
  return begin * 8 + Number(quantity === "init") * 4 + Number(is_in_memory) * 2 + Number(is_beside);
}

const nothing: readonly number[] = [];

/** The oldest beyond the bound go. */
function append(window: number[], added: readonly number[], most: number): void {
  for (const value of added) window.push(value);
  if (window.length > most) window.splice(0, window.length - most);
}

/** Values that were observed two by two. */
function pairsOf(values: readonly number[]): readonly (readonly [number, number])[] {
  const pairs: [number, number][] = [];
  for (let i = 0; i + 1 < values.length; i += 2) pairs.push([values[i] ?? 0, values[i + 1] ?? 0]);
  return pairs;
}

/** Of streams that moved: computed as room allows, beside what their new worker has to do. */
export const moveDetail = "move";

/** The link that KV caches leave a worker by. */
export const networkDetail = "network";

export function keyOf(quantity: EstimateKey["quantity"], fields: KeyFields): EstimateKey {
  const { worker_id = "", model_id = "", device_kind = "", detail = "" } = fields;
  return { quantity, worker_id, model_id, device_kind, detail };
}

/** No part of a key holds a line break. */
function textOf({ quantity, worker_id, model_id, device_kind, detail }: EstimateKey): string {
  return `${quantity}\n${worker_id}\n${model_id}\n${device_kind}\n${detail}`;
}
