import { expect, test } from "bun:test";
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import type { StoredGeneration } from "../ports.ts";
import { replay } from "./replay.ts";

const hops = [{ worker_id: "w-0000000000000001", epoch: 1, first_index: 0 }];
const call: TokensEvent = {
  ...{ type: "tokens", choice: 0, first_index: 0, tokens: [{ token: 1, text: "{}" }] },
  delta: { tool_calls: [{ index: 0, name: "go", arguments: "{}" }] },
};
const done = {
  ...{ type: "done", finish_reason: "stop", text: "", prompt_tokens: 1, completion_tokens: 1 },
  timings: { queue_ms: 0, prefill_ms: 0, decode_ms: 0 },
};

test("the end of an answer with a tool call says so also to a reader that had the call elsewhere", async () => {
  const row = { state: "finished", worker_id: null, instance_id: null, cold_start: false, prompt_tokens: 1 };
  // Only what is read of the stored rows.
  const stored = { row, record: { done, hops }, events: [call] } as unknown as StoredGeneration;
  for (const [after, types] of [
    [-1, ["placed", "accepted", "text", "done"]],
    [0, ["placed", "accepted", "done"]],
  ] as const) {
    const updates = await Array.fromAsync(replay(stored, { after, seen_worker: null }));
    expect(updates.map(({ type }) => type)).toEqual([...types]);
    expect(updates.at(-1)).toMatchObject({ type: "done", had_calls: true });
  }
});
