/** Requests that may be read again, who owns a generation, and streams that move. */
import { describe, expect, test } from "bun:test";
import type { NewMigration, NewResumable, TokenBatch } from "../../../gateway/ports.ts";
import type { DoneEvent, GenerationSettings, TokensEvent } from "../../../schema/cluster/generate.ts";
import { newGenerationId, newInstanceId, newWorkerId } from "../../support/cluster-facts.ts";
import { type Fixture, history, now_ms } from "./fixture.ts";

const [gateway, other] = ["g-00000000000000aa", "g-00000000000000bb"];
const settings: GenerationSettings = {
  prompt: { kind: "text", text: "Once\u0000 upon" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "18446744073709551615" },
  stop: [],
  max_tokens: 9,
  ignore_eos: false,
};
const resumable = (fields: Partial<NewResumable> = {}): NewResumable => ({
  generation_id: newGenerationId(),
  model_id: "m",
  created_at_ms: now_ms,
  owner: gateway,
  tenant: newGenerationId(),
  resume_ms: 60_000,
  settings,
  idempotency: null,
  ...fields,
});
const told = (first_index: number, ...texts: string[]): TokensEvent => ({
  type: "tokens",
  choice: 0,
  first_index,
  tokens: texts.map((text, i) => ({ token: first_index + i, text })),
});
const done: DoneEvent = {
  ...{ type: "done", finish_reason: "stop", text: "!", prompt_tokens: 3, completion_tokens: 3 },
  timings: { queue_ms: 0, prefill_ms: 1.5, decode_ms: 2 },
};
const batch = (generation_id: string, fields: Partial<TokenBatch> = {}): TokenBatch => ({
  ...{ generation_id, epoch: 1, worker_id: newWorkerId(), instance_id: newInstanceId(), hops: [] },
  ...{ prompt: null, events: [], done: null, ...fields },
});

function recordContract(fixture: Fixture): void {
  test("a request is told again from what was written, in order", async () => {
    const { store } = fixture();
    const request = resumable();
    const { generation_id } = request;
    expect(await store.beginGeneration(request)).toEqual({ begun: true });
    const first = batch(generation_id, {
      ...{ prompt: [1, 2, 3], events: [told(0, "a", "\u0000"), told(2, "c")] },
      hops: [{ worker_id: newWorkerId(), epoch: 1, first_index: 0 }],
    });
    expect(await store.appendTokens([first, batch(newGenerationId())])).toEqual([generation_id]);
    const more = { ...first, prompt: null, events: [told(3, "d")], done };
    expect(await store.appendTokens([more])).toEqual([generation_id]);
    // A try whose answer was lost.
    expect(await store.appendTokens([more])).toEqual([generation_id]);
    const stored = await store.getStored(generation_id);
    expect(stored?.events).toEqual([told(0, "a", "\u0000"), told(2, "c"), told(3, "d")]);
    expect(stored?.record).toMatchObject({
      settings,
      prompt: [1, 2, 3],
      hops: first.hops,
      done,
      resume_ms: 60_000,
    });
    expect(stored?.row).toMatchObject({ state: "running", owner: gateway, worker_id: first.worker_id });
    expect(await history(store, "generation", generation_id)).toEqual(["null -> queued (arrived)"]);
  });

  test("a key stands for the first request of its tenant, whoever comes at the same time", async () => {
    const { store } = fixture();
    const tenant = newGenerationId();
    const requests = Array.from({ length: 4 }, (_, i) =>
      resumable({ tenant, idempotency: { key: "k", body_digest: `digest ${i}` } }),
    );
    const results = await Promise.all(requests.map((request) => store.beginGeneration(request)));
    const won = results.findIndex((result) => result.begun);
    const winner = requests[won];
    const first = { generation_id: winner?.generation_id ?? "", body_digest: `digest ${won}` };
    for (const [i, result] of results.entries())
      if (i !== won) expect(result).toEqual({ begun: false, ...first });
    expect(await store.findKey(tenant, "k")).toEqual(first);
    expect(await store.findKey(newGenerationId(), "k")).toBeNull();
    for (const [i, { generation_id }] of requests.entries())
      expect((await store.getGeneration(generation_id)) !== null).toBe(i === won);
    const elsewhere = resumable({ idempotency: { key: "k", body_digest: "digest" } });
    expect(await store.beginGeneration(elsewhere)).toEqual({ begun: true });
  });

  test("records go with the replay time after their end, rows stay", async () => {
    const { store } = fixture();
    const request = resumable({ idempotency: { key: "k", body_digest: "d" } });
    const { generation_id, tenant } = request;
    await store.beginGeneration(request);
    await store.appendTokens([batch(generation_id, { events: [told(0, "a")] })]);
    const ages = { older_than_ms: 10 * 365 * 24 * 3_600_000, limit: 100_000 };
    await store.forget({ ...ages, replay_ms: 0 });
    expect(await store.getStored(generation_id)).not.toBeNull();
    await store.moveGenerations([{ generation_id, from: ["running"], to: "finished", reason: "stop" }]);
    await store.forget({ ...ages, replay_ms: 3_600_000 });
    expect(await store.getStored(generation_id)).not.toBeNull();
    await Bun.sleep(5);
    await store.forget({ ...ages, replay_ms: 0 });
    expect(await store.getStored(generation_id)).toBeNull();
    expect(await store.findKey(tenant, "k")).toBeNull();
    expect(await store.getGeneration(generation_id)).not.toBeNull();
  });
}

function ownerContract(fixture: Fixture): void {
  const claim = (generation_id: string, seen_epoch: number, owner = other) =>
    fixture().store.claimGeneration({
      generation_id,
      model_id: "m",
      created_at_ms: now_ms,
      seen_epoch,
      epoch: seen_epoch + 1,
      owner,
    });

  test("of many who claim an epoch one wins, and the earlier owner writes nothing any more", async () => {
    const { store } = fixture();
    const request = resumable();
    const { generation_id } = request;
    await store.beginGeneration(request);
    const claims = await Promise.all(Array.from({ length: 8 }, () => claim(generation_id, 1)));
    expect(claims.filter(({ won }) => won)).toHaveLength(1);
    for (const { row } of claims) expect(row).toMatchObject({ epoch: 2, owner: other });
    expect(await store.appendTokens([batch(generation_id, { events: [told(0, "old")] })])).toEqual([]);
    const move = { generation_id, from: ["queued", "running"], to: "finished", reason: "stop" } as const;
    expect(await store.moveGenerations([{ ...move, epoch: 1 }])).toEqual([]);
    await store.appendTokens([batch(generation_id, { epoch: 2, events: [told(0, "new")] })]);
    expect((await store.getStored(generation_id))?.events).toEqual([told(0, "new")]);
    expect(await store.moveGenerations([{ ...move, epoch: 2 }])).toEqual([generation_id]);
    expect(await claim(generation_id, 2)).toMatchObject({ won: false, row: { state: "finished", epoch: 2 } });
  });

  test("a claim writes the row that its gateway did not, and says where a move goes", async () => {
    const { store } = fixture();
    const generation_id = newGenerationId();
    const at = { worker_id: newWorkerId(), instance_id: newInstanceId() };
    const wanted = { generation_id, model_id: "m", created_at_ms: now_ms, owner: other };
    expect(await store.claimGeneration({ ...wanted, seen_epoch: 1, epoch: 2 })).toMatchObject({ won: true });
    const moved = await store.claimGeneration({ ...wanted, seen_epoch: 2, epoch: 3, at });
    expect(moved).toMatchObject({ won: true, row: { epoch: 3, state: "running", ...at } });
    await store.insertGenerations([{ generation_id, model_id: "m", created_at_ms: now_ms, owner: gateway }]);
    expect(await store.getGeneration(generation_id)).toMatchObject({ epoch: 3, owner: other });
  });

  test("unfinished generations of gateways that are gone are found, with how long they are kept", async () => {
    const { store } = fixture();
    const [dead, alive] = ["g-0000000000dead00", "g-00000000000a11fe"];
    const kept = resumable({ owner: dead, resume_ms: null });
    await store.beginGeneration(kept);
    await store.beginGeneration(resumable({ owner: alive }));
    const plain = newGenerationId();
    await store.insertGenerations([
      { generation_id: plain, model_id: "m", created_at_ms: now_ms + 1, owner: dead },
    ]);
    const all = await store.unfinishedOfOthers([gateway, other, alive], 1_000);
    const found = all.filter(({ row }) => row.owner === dead);
    expect(found.map(({ row, record }) => [row.generation_id, record])).toEqual([
      [kept.generation_id, { tenant: kept.tenant, resume_ms: null }],
      [plain, null],
    ]);
    expect(all.some(({ row }) => row.owner === alive)).toBe(false);
  });
}

function migrationContract(fixture: Fixture): void {
  const planned = (fields: Partial<NewMigration> = {}): NewMigration => ({
    migration_id: `m-${newGenerationId().slice(16)}`,
    generation_id: newGenerationId(),
    model_id: "m",
    owner: gateway,
    from_worker_id: newWorkerId(),
    from_instance_id: newInstanceId(),
    to_worker_id: newWorkerId(),
    to_instance_id: null,
    reason: "drain",
    ...fields,
  });

  test("a stream has one move at a time, and every step is on record", async () => {
    const { store } = fixture();
    const first = planned();
    const { migration_id, generation_id } = first;
    const [one, two] = await Promise.all([
      store.createMigration(first),
      store.createMigration(planned({ generation_id })),
    ]);
    expect([one, two].filter((row) => row !== null)).toHaveLength(1);
    const id = (one ?? two)?.migration_id ?? "";
    const step = { migration_id: id, reason: "test" };
    expect(await store.moveMigration({ ...step, from: ["loading"], to: "copying" })).toBe(false);
    const instance = newInstanceId();
    expect(
      await store.moveMigration({ ...step, from: ["planned"], to: "copying", to_instance_id: instance }),
    ).toBe(true);
    const progress = { rounds: 2, tokens: 70, bytes: 2 ** 40, method: "kv_transfer" } as const;
    expect(await store.moveMigration({ ...step, from: ["copying"], to: "copying", ...progress })).toBe(true);
    expect(await store.moveMigration({ ...step, from: ["copying"], to: "handing_over", epoch: 2 })).toBe(
      true,
    );
    expect(
      (await store.listMigrations({ live: true, limit: 1_000 })).some((row) => row.migration_id === id),
    ).toBe(true);
    const end = { ...step, from: ["handing_over"], to: "finished", timings_ms: { pause: 12.5 } } as const;
    expect(await store.moveMigration(end)).toBe(true);
    const [row] = await store.listMigrations({ generation_id, limit: 1 });
    expect(row).toMatchObject({ state: "finished", epoch: 2, to_instance_id: instance, ...progress });
    expect(row?.timings_ms).toEqual({ pause: 12.5 });
    expect(row?.ended_at).toBeInstanceOf(Date);
    expect(await history(store, "migration", id)).toEqual([
      "null -> planned (drain)",
      "planned -> copying (test)",
      "copying -> handing_over (test)",
      "handing_over -> finished (test)",
    ]);
    expect(await store.createMigration(planned({ generation_id }))).not.toBeNull();
    expect(migration_id).not.toBe("");
  });

  test("a step that no migration takes is a defect", async () => {
    const { store } = fixture();
    const step = { migration_id: "m-0000000000000000", reason: "test" };
    await expect(store.moveMigration({ ...step, from: ["planned"], to: "finished" })).rejects.toThrow(
      "illegal",
    );
    await expect(store.moveMigration({ ...step, from: ["finished"], to: "finished" })).rejects.toThrow(
      "illegal",
    );
  });
}

export function streamContract(fixture: Fixture): void {
  describe("records", () => recordContract(fixture));
  describe("owners", () => ownerContract(fixture));
  describe("migrations", () => migrationContract(fixture));
}
