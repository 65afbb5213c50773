/** Writes when instances were last used: for other gateways and for after a restart, at a bounded rate. */
import type { InstanceId } from "../../schema/ids.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { StateStore } from "../ports.ts";

/** Time between two writes for one instance. Keep-alives are minutes; a use this old is exact enough. */
const writeEvery_ms = 2_000;

export class LastUses {
  readonly #written = new Map<InstanceId, number>();

  /** One write for each instance that was used since the last one, if that is long enough ago. By the fleet's clock. */
  async write(fleet: Fleet, store: Pick<StateStore, "touchInstance">, now_ms: number): Promise<void> {
    const live = new Set<InstanceId>();
    for (const { instance_id, state } of fleet.instances) {
      live.add(instance_id);
      if (state !== "ready" && state !== "parked") continue;
      const used_ms = fleet.inFlight(instance_id) > 0 ? now_ms : fleet.lastUsedMs(instance_id);
      const known_ms = Math.max(this.#written.get(instance_id) ?? 0, fleet.storedUseMs(instance_id));
      if (used_ms <= known_ms || now_ms - known_ms < writeEvery_ms) continue;
      await store.touchInstance(instance_id, now_ms - used_ms);
      this.#written.set(instance_id, used_ms);
    }
    for (const instance_id of this.#written.keys())
      if (!live.has(instance_id)) this.#written.delete(instance_id);
  }
}
