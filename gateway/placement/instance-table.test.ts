import { expect, test } from "bun:test";
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { InstanceState } from "../../schema/vocab.ts";
import { InstanceTable } from "./instance-table.ts";

function row(instance_id: string, state: InstanceState): InstanceRow {
  return {
    ...{
      instance_id,
      state,
      model_id: "m",
      checkpoint: "c",
      worker_id: "w",
      incarnation: "0",
      device_id: "cpu",
    },
    ...{
      context_tokens: 16,
      slots: 1,
      kv_tokens: null,
      deterministic: false,
      adapter_bytes: 0,
      fingerprint: null,
    },
    ...{ memory_bytes: 1, error_code: null, error_message: null },
    ...{ created_at: new Date(0), ready_at: null, last_used_at: null, ended_at: null },
  };
}

const states = (table: InstanceTable) => [...table.rows.values()].map((r) => `${r.instance_id} ${r.state}`);

test("a read that began before a change does not undo it; one that began after it rules", () => {
  const table = new InstanceTable();
  const early = table.beginRead();
  table.put(row("i-1", "ready"));
  table.put(row("i-2", "gone"));
  table.finishRead(early, [row("i-1", "loading"), row("i-2", "draining")]);
  expect(states(table)).toEqual(["i-1 ready"]);
  const late = table.beginRead();
  table.finishRead(late, [row("i-1", "draining")]);
  expect(states(table)).toEqual(["i-1 draining"]);
});

test("instances that ended are not held", () => {
  const table = new InstanceTable();
  table.finishRead(table.beginRead(), [row("i-1", "failed"), row("i-2", "ready")]);
  expect(states(table)).toEqual(["i-2 ready"]);
  table.put(row("i-2", "failed"));
  expect(states(table)).toEqual([]);
});
