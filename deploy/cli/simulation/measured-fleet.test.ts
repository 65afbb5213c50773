import { describe, expect, test } from "bun:test";
import type { AdminEstimate, AdminWorker, DeployedModel } from "../../../schema/api/admin.ts";
import { clusterOfFleet } from "./measured-fleet.ts";

const checkpoint = "c".repeat(64);
const worker: AdminWorker = {
  ...{
    worker_id: "w-00000000000000aa",
    state: "ready",
    url: "http://w",
    version: "1",
    last_heartbeat_at: null,
  },
  devices: [{ device_id: "cpu", kind: "cpu", memory_bytes: 8e9, reserved_bytes: 0 }],
  links: [{ link: "disk", queued_bytes: 0, queued_ms: 0, bandwidth_bytes_per_s: 1e9 }],
  problems: [],
  placements: [{ checkpoint, tier: "disk", state: "present", bytes_present: 1e9 }],
};
const model: DeployedModel = {
  ...{ id: "m", state: "active", checkpoint, architecture: "llama", parameters: 1, weights_bytes: 1e9 },
  ...{ kv_bytes_per_token: 1_000, context_tokens: 512, slots: 2, kv_tokens: null, deterministic: false },
  ...{
    keep_alive_ms: 1_000,
    min_instances: 0,
    max_instances: null,
    target_concurrency: null,
    queue_delay_ms: 5_000,
  },
  ...{ preload: false, created_at: "", instances: [] },
};
const learned = (fields: Partial<AdminEstimate>): AdminEstimate => ({
  ...{
    quantity: "init",
    worker_id: null,
    model_id: null,
    device_kind: null,
    detail: null,
    value: 1,
    observations: 1,
  },
  ...{ error_p50: null, error_p90: null, updated_at: "", ...fields },
});

describe("a measured fleet", () => {
  test("has the rates and times that were learned, else what workers report", () => {
    const plain = clusterOfFleet({ workers: [worker], models: [model], estimates: [] });
    expect(plain.hosts[0]).toMatchObject({
      device_kind: "cpu",
      device_memory_bytes: 8e9,
      disk_bytes_per_s: 1e9,
    });
    const estimates = [
      learned({ quantity: "bandwidth", worker_id: worker.worker_id, detail: "disk", value: 500_000 }),
      learned({ model_id: "m", detail: "warm", value: 40, observations: 9 }),
      learned({ model_id: "m", detail: "cold", value: 300, observations: 2 }),
      learned({ model_id: "m", detail: "warm/disk", value: 70, observations: 20 }),
      learned({ quantity: "decode", model_id: "m", value: 12 }),
    ];
    const measured = clusterOfFleet({ workers: [worker], models: [model], estimates });
    expect(measured.hosts[0]?.disk_bytes_per_s).toBe(5e8);
    expect(measured.models[0]).toMatchObject({ init_ms: 40, token_ms: 12, slots: 2, disk_copies: null });
  });

  test("without workers or models is refused with what there is", () => {
    const lost = { ...worker, state: "lost" as const };
    expect(() => clusterOfFleet({ workers: [lost], models: [model], estimates: [] })).toThrow("0 workers");
  });
});
