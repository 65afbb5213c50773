/** Generations and the audit trail. */
import { expect, test } from "bun:test";
import type { GenerationMove } from "../../../gateway/ports.ts";
import type { ExplainedDecision } from "../../../schema/api/admin.ts";
import { type GenerationState, generationMoves, generationStates } from "../../../schema/vocab.ts";
import { newGenerationId, newInstanceId, newWorkerId } from "../../support/cluster-facts.ts";
import { type Fixture, history, now_ms } from "./fixture.ts";

const timeline_ms = {
  queue: 1,
  process_start: 2.5,
  disk_read: 3,
  model_build: 4,
  resume: 0,
  prefill: 5,
  first_token: 6,
  total: 20.25,
};

export function generationContract(fixture: Fixture): void {
  const insert = async () => {
    const generation_id = newGenerationId();
    await fixture().store.insertGenerations([{ generation_id, model_id: "m", created_at_ms: now_ms + 0.25 }]);
    return generation_id;
  };
  const moveOne = async (one: GenerationMove) => {
    const moved = await fixture().store.moveGenerations([one]);
    expect([[], [one.generation_id]]).toContainEqual(moved);
    return moved.length === 1;
  };
  const move = async (generation_id: string, from: GenerationState, to: GenerationState) =>
    await moveOne({ generation_id, from: [from], to, reason: "test" });

  test("a generation is queued, runs and finishes, with what became known on the way", async () => {
    const { store } = fixture();
    const generation_id = await insert();
    expect(await store.getGeneration(generation_id)).toMatchObject({
      model_id: "m",
      state: "queued",
      epoch: 1,
      worker_id: null,
      instance_id: null,
      cold_start: false,
      finish_reason: null,
      timeline_ms: null,
      created_at: new Date(now_ms),
      finished_at: null,
    });
    const run: GenerationMove = {
      generation_id,
      from: ["queued"],
      to: "running",
      reason: "placed",
      worker_id: newWorkerId(),
      instance_id: newInstanceId(),
      cold_start: true,
      prompt_tokens: 7,
    };
    expect(await moveOne(run)).toBe(true);
    const finish: GenerationMove = {
      generation_id,
      from: ["running"],
      to: "finished",
      reason: "done",
      completion_tokens: 11,
      finish_reason: "length",
      timeline_ms,
    };
    expect(await moveOne(finish)).toBe(true);
    const row = await store.getGeneration(generation_id);
    expect(row).toMatchObject({
      state: "finished",
      worker_id: run.worker_id ?? "",
      instance_id: run.instance_id ?? "",
      cold_start: true,
      prompt_tokens: 7,
      completion_tokens: 11,
      finish_reason: "length",
      timeline_ms,
    });
    expect(row?.finished_at).toBeInstanceOf(Date);
    expect(await history(store, "generation", generation_id)).toEqual([
      "null -> queued (arrived)",
      "queued -> running (placed)",
      "running -> finished (done)",
    ]);
  });

  test("why it ran where it did is kept with it, and saying twice that it arrived changes nothing", async () => {
    const { store } = fixture();
    const generation_id = newGenerationId();
    const decision: ExplainedDecision = {
      at: new Date(now_ms).toISOString(),
      times: 1,
      action: "use",
      worker_id: null,
      device_id: null,
      instance_id: newInstanceId(),
      tier: null,
      estimate_ms: 0.5,
      reason: "it has a free slot \0",
      losers: [],
    };
    const arrived = { generation_id, model_id: "m", created_at_ms: now_ms };
    await store.insertGenerations([{ ...arrived, decisions: [decision] }]);
    await store.insertGenerations([arrived]);
    expect((await store.getGeneration(generation_id))?.decisions).toEqual([decision]);
    expect(await history(store, "generation", generation_id)).toHaveLength(1);
    const decisions = [decision, { ...decision, times: 7 }];
    await moveOne({
      generation_id,
      from: ["queued"],
      to: "finished",
      reason: "test",
      decisions,
    });
    expect((await store.getGeneration(generation_id))?.decisions).toEqual(decisions);
  });

  test("a failed generation keeps the error", async () => {
    const { store } = fixture();
    const generation_id = await insert();
    const error = { code: "engine_failed", message: "it said: \0" } as const;
    await moveOne({
      generation_id,
      from: ["queued", "running"],
      to: "failed",
      reason: "engine",
      error,
    });
    expect(await store.getGeneration(generation_id)).toMatchObject({
      state: "failed",
      error_code: "engine_failed",
      error_message: "it said: \uFFFD",
    });
  });

  test("every legal move is made once and an ended generation stays as it ended", async () => {
    const { store } = fixture();
    for (const from of ["queued", "running"] as const) {
      for (const to of generationMoves[from]) {
        const generation_id = await insert();
        if (from === "running") await move(generation_id, "queued", "running");
        expect(await move(generation_id, from, to)).toBe(true);
        expect(await move(generation_id, from, to)).toBe(false);
        expect((await store.getGeneration(generation_id))?.state).toBe(to);
        expect((await history(store, "generation", generation_id)).at(-1)).toBe(`${from} -> ${to} (test)`);
      }
    }
  });

  test("many generations are written at once; one that may not move keeps no other from it", async () => {
    const { store } = fixture();
    const ids = Array.from({ length: 5 }, newGenerationId);
    const begun = ids.map((generation_id, i) => ({
      generation_id,
      model_id: `m${i}`,
      created_at_ms: now_ms,
    }));
    await store.insertGenerations(begun.slice(0, 3));
    await store.insertGenerations(begun.slice(1, 4));
    await store.insertGenerations([]);
    const [first = ""] = ids;
    await move(first, "queued", "cancelled");
    const moved = await store.moveGenerations(
      ids.map((generation_id, i): GenerationMove => {
        const how = { from: ["queued", "running"] as const, to: "finished", reason: "done" } as const;
        return { generation_id, ...how, ...(i === 2 ? {} : { completion_tokens: i, cold_start: true }) };
      }),
    );
    expect(moved.toSorted()).toEqual(ids.slice(1, 4).toSorted());
    expect(await store.moveGenerations([])).toEqual([]);
    const rows = await Promise.all(ids.map((id) => store.getGeneration(id)));
    const facts = rows.map((row) => row && [row.model_id, row.state, row.completion_tokens, row.cold_start]);
    expect(facts).toEqual([
      ["m0", "cancelled", null, false],
      ["m1", "finished", 1, true],
      ["m2", "finished", null, false],
      ["m3", "finished", 3, true],
      null,
    ]);
    for (const id of ids.slice(0, 4)) expect(await history(store, "generation", id)).toHaveLength(2);
  });

  test("illegal moves of a generation throw", async () => {
    const generation_id = await insert();
    for (const from of generationStates) {
      const legal: readonly GenerationState[] = generationMoves[from];
      for (const to of generationStates.filter((state) => !legal.includes(state))) {
        await expect(move(generation_id, from, to)).rejects.toThrow(`${from} -> ${to}`);
      }
    }
    expect((await fixture().store.getGeneration(generation_id))?.state).toBe("queued");
  });

  test("an unknown generation is null and cannot move", async () => {
    expect(await fixture().store.getGeneration(newGenerationId())).toBeNull();
    expect(await move(newGenerationId(), "queued", "running")).toBe(false);
  });

  test("one of many concurrent moves of a generation wins", async () => {
    const generation_id = await insert();
    const results = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        move(generation_id, "queued", i % 2 === 0 ? "cancelled" : "running"),
      ),
    );
    expect(results.filter((won) => won)).toHaveLength(1);
    expect(await history(fixture().store, "generation", generation_id)).toHaveLength(2);
  });

  test("events come newest first, by entity and id, no more than asked for", async () => {
    const { store } = fixture();
    const generation_id = await insert();
    await move(generation_id, "queued", "running");
    await move(generation_id, "running", "finished");
    const two = await store.listEvents({ entity: "generation", entity_id: generation_id, limit: 2 });
    expect(two.map((event) => event.to_state)).toEqual(["finished", "running"]);
    expect(two[0]?.at).toBeInstanceOf(Date);
    const [latest] = await store.listEvents({ limit: 1 });
    expect(latest).toMatchObject({ entity: "generation", entity_id: generation_id, to_state: "finished" });
    expect(await store.listEvents({ entity: "model", entity_id: generation_id, limit: 9 })).toEqual([]);
  });
}
