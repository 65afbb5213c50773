import { describe, expect, test } from "bun:test";
import type { AdminWorker, DeployedModel } from "../../../schema/api/admin.ts";
import type { InstanceState } from "../../../schema/vocab.ts";
import { formatModels, formatWorkers } from "./ls.ts";

function model(states: readonly InstanceState[], state: DeployedModel["state"] = "active"): DeployedModel {
  return {
    id: "llama",
    state,
    checkpoint: "0".repeat(64),
    architecture: "llama",
    parameters: 1_235_814_400,
    weights_bytes: 807_690_240,
    context_tokens: 8192,
    slots: 4,
    kv_tokens: null,
    deterministic: false,
    keep_alive_ms: 300_000,
    ...{
      min_instances: 0,
      max_instances: null,
      target_concurrency: null,
      queue_delay_ms: 5_000,
      preload: false,
    },
    created_at: "2026-01-01T00:00:00.000Z",
    instances: states.map((instance_state, i) => ({
      instance_id: `i-${String(i).padStart(16, "0")}`,
      worker_id: "w-0123456789abcdef",
      state: instance_state,
    })),
  };
}

describe("the list of models", () => {
  test("says what to do when there is none", () => {
    expect(formatModels([])).toContain("sllm deploy");
  });

  test("shows name, state and size in columns", () => {
    const [title, row] = formatModels([model(["ready"])]).split("\n");
    expect(title?.split(/ {2,}/)).toEqual([
      "NAME",
      "STATE",
      "ARCHITECTURE",
      "PARAMETERS",
      "SIZE",
      "CONTEXT",
      "INSTANCES",
    ]);
    expect(row?.trim().split(/ {2,}/)).toEqual(["llama", "ready", "llama", "1.24B", "770 MiB", "8192", "1"]);
  });

  test.each<[readonly InstanceState[], string]>([
    [[], "idle"],
    [["loading"], "loading"],
    [["failed", "ready"], "ready"],
    [["draining", "loading"], "loading"],
    [["failed"], "failed"],
    [["failed", "parked"], "parked"],
    [["parked", "loading"], "loading"],
  ])("with instances that are %p a model is %p", (states, word) => {
    expect(formatModels([model(states)])).toContain(` ${word} `);
  });

  test("a model on its way out is deleting, whatever its instances do", () => {
    expect(formatModels([model(["ready"], "deleting")])).toContain(" deleting ");
  });
});

describe("the list of workers", () => {
  const worker: AdminWorker = {
    worker_id: "w-0123456789abcdef",
    state: "ready",
    url: "http://127.0.0.1:9000",
    version: "0.1.0",
    last_heartbeat_at: null,
    devices: [{ device_id: "cpu", kind: "cpu", memory_bytes: 8 * 1024 ** 3, reserved_bytes: 1024 ** 3 }],
    links: [],
    problems: [],
    placements: (["disk", "host"] as const).map((tier) => ({
      checkpoint: "0".repeat(64),
      tier,
      state: "present",
      bytes_present: 1,
    })),
  };

  test("says what to do when there is none", () => {
    expect(formatWorkers([])).toContain("sllm up");
  });

  test("adds up memory and counts a checkpoint once, in however many tiers it is", () => {
    const row = formatWorkers([worker]).split("\n")[1];
    const cells = ["w-0123456789abcdef", "ready", "http://127.0.0.1:9000", "cpu", "1.0 GiB", "8.0 GiB", "1"];
    expect(row?.trim().split(/ {2,}/)).toEqual(cells);
  });
});
