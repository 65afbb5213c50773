/** What every store promises about learned quantities. */
import { expect, test } from "bun:test";
import type { ObservedEstimate } from "../../../gateway/ports.ts";
import { limits } from "../../../schema/limits.ts";
import { newWorkerId } from "../../support/cluster-facts.ts";
import type { StateStoreFixture } from "./fixture.ts";

const observed = (worker_id: string, fields: Partial<ObservedEstimate> = {}): ObservedEstimate => ({
  ...{ quantity: "bandwidth", worker_id, model_id: "", device_kind: "", detail: "disk" },
  ...{ values: [], errors: [], ...fields },
});

export function estimateContract(fixture: () => StateStoreFixture): void {
  const of = async (worker_id: string) =>
    (await fixture().store.estimates()).filter((row) => row.worker_id === worker_id);

  test("what several gateways see of one quantity is added up, the oldest forgotten", async () => {
    const { store } = fixture();
    const worker_id = newWorkerId();
    const many = Array.from({ length: limits.estimate_values }, (_, i) => i + 0.5);
    await store.recordEstimates([observed(worker_id, { values: [100, 200], errors: [0.25] })]);
    await Promise.all([
      store.recordEstimates([observed(worker_id, { values: many.slice(0, 8) })]),
      store.recordEstimates([observed(worker_id, { values: many.slice(8) })]),
    ]);
    const [row] = await of(worker_id);
    expect(row).toMatchObject({ errors: [0.25], observations: limits.estimate_values + 2 });
    expect(row?.values.toSorted((a, b) => a - b)).toEqual(many);
  });

  test("different quantities are told apart by every part of their key", async () => {
    const { store } = fixture();
    const worker_id = newWorkerId();
    await store.recordEstimates([
      observed(worker_id, { values: [1] }),
      observed(worker_id, { values: [2], detail: "device:cuda0" }),
      observed(worker_id, {
        values: [3],
        quantity: "init",
        model_id: "m",
        device_kind: "cpu",
        detail: "start",
      }),
    ]);
    await store.recordEstimates([]);
    expect((await of(worker_id)).map((row) => row.values).sort()).toEqual([[1], [2], [3]]);
  });
}
