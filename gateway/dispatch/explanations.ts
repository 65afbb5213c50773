/**
 * The decisions for the last requests of this gateway, so that people can be told why a request ran where it did. Rows
 * of generations keep them for the other gateways.
 */
import type { ExplainedDecision as PublicDecision } from "../../schema/api/admin.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Decision } from "../scheduler/decision.ts";

export interface ExplainedDecision extends Decision {
  /** Wall time at which it was made first. */
  readonly at_ms: number;
  /** How often it was made in a row: who waits asks again whenever something changed. */
  readonly times: number;
}

export class Explanations {
  readonly #byGeneration = new Map<GenerationId, ExplainedDecision[]>();

  note(generation_id: GenerationId, at_ms: number, decision: Decision): void {
    const noted = this.#byGeneration.get(generation_id);
    if (noted === undefined) {
      this.#byGeneration.set(generation_id, [{ ...decision, at_ms, times: 1 }]);
      this.#forgetOldest();
      return;
    }
    const last = noted.at(-1);
    if (last !== undefined && isSame(last, decision)) {
      noted[noted.length - 1] = { ...last, times: last.times + 1 };
      return;
    }
    noted.push({ ...decision, at_ms, times: 1 });
    if (noted.length > limits.explained_decisions) noted.shift();
  }

  /** In the order they were made; null for requests of other gateways and of long ago. */
  of(generation_id: GenerationId): readonly ExplainedDecision[] | null {
    return this.#byGeneration.get(generation_id) ?? null;
  }

  #forgetOldest(): void {
    if (this.#byGeneration.size <= limits.explained_requests) return;
    const [oldest] = this.#byGeneration.keys();
    if (oldest !== undefined) this.#byGeneration.delete(oldest);
  }
}

function isSame(a: Decision, b: Decision): boolean {
  return a.reason === b.reason && placeOf(a) === placeOf(b);
}

function placeOf({ action }: Decision): string {
  const at = "target" in action ? action.target : action;
  const device = "device_id" in at ? `${at.worker_id}/${at.device_id}` : "";
  return `${action.kind} ${"instance_id" in action ? action.instance_id : device}`;
}

/** A decision as it is kept and shown. Pure. */
export function toExplainedDecision(noted: ExplainedDecision): PublicDecision {
  const { action, reason, estimate_ms, losers, at_ms, times } = noted;
  const target = "target" in action ? action.target : null;
  const place = target ?? ("device_id" in action ? action : null);
  const instance_id = "instance_id" in action ? action.instance_id : (target?.parked ?? null);
  return {
    at: new Date(at_ms).toISOString(),
    times,
    action: action.kind,
    worker_id: place?.worker_id ?? null,
    device_id: place?.device_id ?? null,
    instance_id,
    tier: target?.tier ?? null,
    estimate_ms,
    reason,
    losers: [...losers],
  };
}
