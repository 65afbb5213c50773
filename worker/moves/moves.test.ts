/** Departure and arrival together, over a network that loses calls and answers, with engines that step by hand. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../schema/limits.ts";
import { type Fault, MoveScene, someKv } from "../../test/support/move-scene.ts";
import { checkAsyncProperty } from "../../test/support/property.ts";
import { instance_id } from "../../test/support/stepped-engine.ts";

test("a stream moves in rounds, and its readers get every token once", async () => {
  const scene = new MoveScene();
  await scene.play();
  expect(scene.seen.map(({ type }) => type)).toEqual([
    ...scene.seen.slice(0, -2).map((): "round" => "round"),
    "ready",
    "handed_over",
  ]);
  expect(scene.handOver).toMatchObject({ outcome: "moved", error: null });
  expect(scene.source.movedTo).toMatchObject({ epoch: 2, worker_id: "w-0000000000000002", instance_id });
  scene.check(100);
  expect(scene.source.engine.unfinished).toBe(0);
});

test("a stream moves with its KV cache where the destination's engine takes it, and is computed where not", async () => {
  const [whole, computed, broken] = [true, true, true].map((with_kv) => new MoveScene({ with_kv }));
  if (!whole || !computed || !broken) throw new Error("three scenes");
  for (const scene of [whole, broken]) scene.there.engine.kv = someKv;
  // Nothing of the second part gets there.
  broken.faults = [null, null, "request"];
  for (const scene of [whole, computed, broken]) {
    scene.there.engine.tokensPerStep = 3;
    for (let i = 0; i < 20; i++) scene.source.engine.step();
    await scene.play();
    expect(scene.handOver).toMatchObject({ outcome: "moved" });
    scene.check(100);
  }
  expect(whole.seen[0]).toMatchObject({ type: "kv", kv_tokens: 22 });
  expect(whole.there.engine.loaded).toBe(22);
  for (const scene of [computed, broken]) expect(scene.seen[0]?.type).toBe("round");
});

test("what was computed with an adapter is never taken for rows of another: the destination computes it", async () => {
  const scene = new MoveScene({ with_kv: true, adapter: "a".repeat(64) });
  // Of the same engine as the source's, as far as the fingerprint says.
  scene.there.engine.kv = someKv;
  scene.there.engine.tokensPerStep = 3;
  for (let i = 0; i < 20; i++) scene.source.engine.step();
  await scene.play();
  expect(scene.handOver).toMatchObject({ outcome: "moved" });
  expect(scene.seen[0]?.type).toBe("round");
  expect(scene.there.engine.loaded).toBe(0);
  scene.check(100);
});

test("what the destination finds computed is no work of the first round", async () => {
  const firstRound = async (cached: number) => {
    const scene = new MoveScene();
    scene.there.engine.cachedTokens = cached;
    await scene.play();
    scene.check(100);
    const [first] = scene.seen;
    if (first?.type !== "round") throw new Error("no round came first");
    return first;
  };
  const [anew, found] = [await firstRound(0), await firstRound(2)];
  expect(found.round_tokens).toBe(anew.round_tokens - 2);
  expect(found.tokens).toBe(anew.tokens);
});

test("a generation that ends during the rounds is not moved, and nothing of it stays there", async () => {
  const scene = new MoveScene({ most: 3, gap_tokens: 1 });
  scene.there.engine.computes = false;
  await scene.play(5);
  expect(scene.seen.at(-1)).toEqual({ type: "ended" });
  scene.check(3);
  expect(scene.there.engine.unfinished).toBe(0);
});

test("a move that never gets close gives up after its rounds, and the generation goes on", async () => {
  const scene = new MoveScene({ most: 1_000, rounds: 2, gap_tokens: 1 });
  scene.there.engine.tokensPerStep = 1;
  scene.source.engine.tokensPerStep = 6;
  await scene.play();
  expect(scene.seen.at(-1)).toMatchObject({ type: "error", error: { code: "state_conflict" } });
  scene.check(1_000);
  expect(scene.there.engine.unfinished).toBe(0);
});

test("a destination whose engine gives it up changes nothing at the source", async () => {
  const scene = new MoveScene();
  scene.there.engine.computes = false;
  scene.begin();
  await scene.clock.advance(10);
  scene.there.engine.fail();
  await scene.play();
  expect(scene.seen.at(-1)).toMatchObject({ type: "error", error: { code: "engine_failed" } });
  scene.check(100);
});

test("when the gateway that asked for it leaves, the move is over", async () => {
  const scene = new MoveScene();
  scene.there.engine.computes = false;
  scene.begin();
  await scene.clock.advance(50);
  scene.departure.stop();
  await scene.play();
  expect(scene.seen.at(-1)).toMatchObject({ type: "error", error: { code: "cancelled" } });
  scene.check(100);
  expect(scene.there.engine.unfinished).toBe(0);
});

test("while nobody knows whether the destination has it, it stands still; then it goes on at one of both", async () => {
  for (const isFenced of [true, false]) {
    const scene = new MoveScene();
    scene.isCutOff = true;
    scene.begin();
    for (let i = 0; i < 200 && scene.handOver === null; i++) {
      scene.source.engine.step();
      scene.there.engine.step();
      await scene.clock.advance(20);
    }
    if (scene.handOver === null) throw new Error("the hand-over has no end");
    expect(scene.handOver.outcome).toBe("unknown");
    const before = scene.source.nextIndex;
    scene.source.engine.step();
    expect(scene.source.nextIndex).toBe(before);
    scene.isCutOff = false;
    if (isFenced) {
      scene.there.fenced = 3;
      scene.departure.goOn();
    }
    for (let i = 0; i < 200; i++) {
      scene.source.engine.step();
      scene.there.engine.step();
      await scene.clock.advance(20);
    }
    expect(scene.there.runs).toBe(!isFenced);
    scene.check(100);
  }
});

test("a source that is never heard of again does not keep the destination's slot", async () => {
  const scene = new MoveScene();
  scene.there.engine.computes = false;
  scene.begin();
  await scene.clock.advance(50);
  scene.faults = new Array<Fault>(1_000).fill("request");
  await scene.clock.advance(limits.arrival_idle_ms + 100);
  expect(scene.there.engine.unfinished).toBe(0);
});

test("whatever calls and answers are lost, exactly one worker runs it, and no token is lost or doubled", async () => {
  const fault = fc.constantFrom<Fault>(null, null, null, "request", "answer");
  const cases = fc.record({
    faults: fc.array(fault, { maxLength: 30 }),
    most: fc.integer({ min: 1, max: 60 }),
    gap_tokens: fc.integer({ min: 1, max: 5 }),
    with_kv: fc.boolean(),
    speeds: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 })),
  });
  await checkAsyncProperty(
    cases,
    async ({ speeds, ...options }) => {
      const scene = new MoveScene(options);
      scene.there.engine.kv = someKv;
      [scene.source.engine.tokensPerStep, scene.there.engine.tokensPerStep] = speeds;
      await scene.play(300);
      scene.check(options.most);
    },
    60,
  );
});
