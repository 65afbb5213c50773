import { expect, test } from "bun:test";
import type { GenerationSettings } from "../../schema/cluster/generate.ts";
import { limits } from "../../schema/limits.ts";
import { newGenerationId } from "../../test/support/cluster-facts.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { Orphans } from "./orphans.ts";

const log = { info: () => {}, warn: () => {}, error: () => {} };
const [here, dead, living] = ["g-00000000000000aa", "g-0000000000dead00", "g-00000000000a11fe"];
const settings: GenerationSettings = {
  prompt: { kind: "text", text: "x" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 9,
  ignore_eos: false,
};

test("what lost its gateway is gone on with, or closed when nobody came back for it; the rest is left alone", async () => {
  const store = new MemoryStateStore();
  const adopted: string[] = [];
  const gateways = { alive: () => [here, living], isAlive: (id: string) => id !== dead };
  const adopt = async (id: string) => void adopted.push(id);
  const orphans = new Orphans({ store, gateways, adopt, log });
  const begin = async (owner: string, resume_ms: number | null) => {
    const generation_id = newGenerationId();
    const row = { generation_id, model_id: "m", created_at_ms: 0, owner, tenant: "t" };
    await store.beginGeneration({ ...row, resume_ms, settings, idempotency: null });
    return generation_id;
  };
  const [background, kept, others] = [
    await begin(dead, null),
    await begin(dead, 60_000),
    await begin(living, 1_000),
  ];
  const plain = newGenerationId();
  await store.insertGenerations([{ generation_id: plain, model_id: "m", created_at_ms: 0, owner: dead }]);
  const stateOf = async (id: string) => (await store.getGeneration(id))?.state;

  await orphans.turn(0);
  await orphans.turn(1);
  expect(adopted).toEqual([background]);
  await orphans.turn(2 * limits.orphan_grace_ms);
  expect(await stateOf(plain)).toBe("failed");
  expect(await stateOf(kept)).toBe("queued");
  await orphans.turn(60_000);
  expect(await store.getGeneration(kept)).toMatchObject({ state: "failed", error_code: "generation_lost" });
  expect(await stateOf(background)).toBe("queued");
  expect(await stateOf(others)).toBe("queued");
});
