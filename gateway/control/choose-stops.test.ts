/** Which instances go: properties over whatever instances and models there are. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { InstanceRow, ModelRow } from "../../schema/db/tables.ts";
import { instanceStates } from "../../schema/vocab.ts";
import { checkProperty } from "../../test/support/property.ts";
import { chooseStops, type UsageView } from "./choose-stops.ts";

const now_ms = 1_000_000;
const settings = { context_tokens: 128, slots: 4, kv_tokens: null, deterministic: false };
const at = new Date(0);

function model(fields: Partial<ModelRow> = {}): ModelRow {
  const scaling = { min_instances: 0, max_instances: null, target_concurrency: null, queue_delay_ms: 0 };
  const row = { model_id: "m", state: "active", checkpoint: "c", keep_alive_ms: 10_000 } as const;
  return { ...row, ...settings, ...scaling, preload: false, created_at: at, ...fields };
}

function instance(number: number, fields: Partial<InstanceRow> = {}): InstanceRow {
  return {
    instance_id: `i-${number}`,
    ...{
      model_id: "m",
      checkpoint: "c",
      worker_id: "w",
      incarnation: "0",
      device_id: "cpu",
      adapter_bytes: 0,
    },
    ...{ state: "ready", fingerprint: null, memory_bytes: 1, error_code: null, error_message: null },
    ...{ created_at: at, ready_at: at, last_used_at: null, ended_at: null },
    ...settings,
    ...fields,
  };
}

interface Use {
  readonly in_flight: number;
  readonly idle_ms: number;
}

function usage(uses: readonly Use[], park_ms = 5_000): UsageView {
  const of = (id: string) => uses[Number(id.slice(2))] ?? { in_flight: 0, idle_ms: 0 };
  return {
    ...{ now_ms, park_ms, canPark: () => true },
    inFlight: (id) => of(id).in_flight,
    lastUsedMs: (id) => now_ms - of(id).idle_ms,
  };
}

const idle = (idle_ms: number): Use => ({ in_flight: 0, idle_ms });

describe("of several idle instances", () => {
  test("the least recently used goes and the minimum stays", () => {
    const rows = [instance(0), instance(1), instance(2)];
    const uses = usage([idle(20_000), idle(40_000), idle(30_000)]);
    const stops = chooseStops(rows, [model({ min_instances: 1 })], uses);
    expect(stops.map((s) => [s.instance.instance_id, s.how])).toEqual([
      ["i-1", "park"],
      ["i-2", "park"],
    ]);
  });

  test("those beyond the maximum go before their keep-alive", () => {
    const rows = [instance(0), instance(1)];
    const stops = chooseStops(rows, [model({ max_instances: 1 })], usage([idle(2_000), idle(1_500)]));
    expect(stops.map((s) => [s.instance.instance_id, s.reason])).toEqual([["i-0", "more than allowed"]]);
  });

  test("one with older settings makes place for one with the new ones, minimum or not", () => {
    const rows = [instance(0, { slots: 2 })];
    const stops = chooseStops(rows, [model({ min_instances: 1 })], usage([idle(2_000)]));
    expect(stops.map((s) => s.reason)).toEqual(["has older settings"]);
  });
});

describe("whatever there is", () => {
  const someone = fc.record({
    state: fc.constantFrom(...instanceStates),
    checkpoint: fc.constantFrom("c", "d"),
    slots: fc.constantFrom(4, 2),
    in_flight: fc.constantFrom(0, 0, 1),
    idle_ms: fc.integer({ min: 0, max: 60_000 }),
  });
  const world = fc.record({
    instances: fc.array(someone, { maxLength: 10 }),
    min_instances: fc.integer({ min: 0, max: 4 }),
    park_ms: fc.constantFrom(0, 5_000),
    state: fc.constantFrom("active", "deleting"),
  });
  type World = typeof world extends fc.Arbitrary<infer T> ? T : never;
  const run = ({ instances, min_instances, park_ms, state }: World) => {
    const rows = instances.map(({ state, checkpoint, slots }, i) =>
      instance(i, { state, checkpoint, slots }),
    );
    const wanted = model({ min_instances, state: state === "active" ? "active" : "deleting" });
    return { rows, stops: chooseStops(rows, [wanted], usage(instances, park_ms)) };
  };

  test("nothing that works or loads is stopped, and nothing twice", () => {
    checkProperty(world, (given) => {
      const { stops } = run(given);
      expect(new Set(stops.map((s) => s.instance.instance_id)).size).toBe(stops.length);
      for (const { instance: row } of stops) {
        expect(["ready", "parked", "draining"]).toContain(row.state);
        if (row.state !== "draining")
          expect(given.instances[Number(row.instance_id.slice(2))]?.in_flight).toBe(0);
      }
    });
  });

  test("an active model keeps its minimum of those that serve as they are to", () => {
    checkProperty(world, (given) => {
      if (given.state !== "active") return;
      const { rows, stops } = run(given);
      const serves = (row: InstanceRow) =>
        ["ready", "loading"].includes(row.state) && row.checkpoint === "c" && row.slots === 4;
      const before = rows.filter(serves).length;
      const going = stops.filter((s) => serves(s.instance)).length;
      expect(before - going).toBeGreaterThanOrEqual(Math.min(before, given.min_instances));
    });
  });

  test("who goes was idle at least as long as who stays, of those that could go", () => {
    checkProperty(world, (given) => {
      const { rows, stops } = run({ ...given, state: "active" });
      const gone = new Set(stops.map((s) => s.instance.instance_id));
      const idle_ms = (row: InstanceRow) => given.instances[Number(row.instance_id.slice(2))]?.idle_ms ?? 0;
      const equal = rows.filter(
        (r) => r.state === "ready" && r.checkpoint === "c" && r.slots === 4 && idle_ms(r) >= 10_000,
      );
      const free = equal.filter((r) => given.instances[Number(r.instance_id.slice(2))]?.in_flight === 0);
      for (const stays of free.filter((r) => !gone.has(r.instance_id))) {
        for (const goes of free.filter((r) => gone.has(r.instance_id))) {
          expect(idle_ms(goes)).toBeGreaterThanOrEqual(idle_ms(stays));
        }
      }
    });
  });
});
