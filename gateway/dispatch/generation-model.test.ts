/** Every order of what can happen to one generation, up to a bound: no client ever gets a token that does not follow. */
import { expect, test } from "bun:test";
import {
  answerTokens,
  firstWorld,
  type Step,
  stepsFrom,
  type World,
} from "../../test/support/stream-model.ts";
import { hasEnded } from "./generation.ts";

interface Explored {
  readonly worlds: number;
  /** Worlds in which a client has the whole answer, and in which one was told that its own is lost. */
  readonly finished: number;
  readonly lost: number;
  readonly moved: number;
}

/** Breadth first, each world once; a failure tells the way there. Worlds deeper than the bound are not looked into. */
function explore(first: World, depth: number): Explored {
  const known = new Map<string, { readonly before: string | null; readonly name: string }>();
  let frontier: { readonly key: string; readonly world: World }[] = [];
  const counts = { finished: 0, lost: 0, moved: 0 };
  const add = (before: string | null, { name, next }: Step, into: typeof frontier) => {
    const key = JSON.stringify(next);
    if (known.has(key)) return;
    known.set(key, { before, name });
    into.push({ key, world: next });
    if (next.workers.some((worker) => worker.run?.movedTo != null)) counts.moved += 1;
    for (const view of next.gateways) {
      if (view?.state.phase === "finished") {
        counts.finished += 1;
        expect(view.told).toHaveLength(answerTokens);
      }
      if (view?.isLost === true) counts.lost += 1;
    }
  };
  add(null, { name: "begin", next: first }, frontier);
  for (let i = 0; i < depth && frontier.length > 0; i++) {
    const deeper: typeof frontier = [];
    for (const { key, world } of frontier) {
      let steps: Step[];
      try {
        steps = stepsFrom(world);
      } catch (error) {
        throw new Error(`${error instanceof Error ? error.message : error}\n${wayTo(known, key).join("\n")}`);
      }
      const isEnded = world.gateways.every((view) => view === null || hasEnded(view.state));
      if (steps.length === 0 && !isEnded)
        throw new Error(`nothing is left to do\n${wayTo(known, key).join("\n")}`);
      for (const step of steps) add(key, step, deeper);
    }
    frontier = deeper;
  }
  return { worlds: known.size, ...counts };
}

function wayTo(known: ReadonlyMap<string, { before: string | null; name: string }>, key: string): string[] {
  const steps: string[] = [];
  for (let at: string | null = key; at !== null; at = known.get(at)?.before ?? null) {
    steps.unshift(known.get(at)?.name ?? "");
  }
  return steps;
}

const isLong = process.env.SLLM_TEST_LONG === "1";
const limit_ms = isLong ? 1_800_000 : 120_000;

test(
  "whatever is lost, late, repeated, moved or claimed, a client's tokens are those of one text",
  () => {
    const depth = Number(process.env.SLLM_TEST_DEPTH ?? (isLong ? 19 : 13));
    const { worlds, finished, lost, moved } = explore(firstWorld(2), depth);
    expect(worlds).toBeGreaterThan(10_000);
    expect(finished).toBeGreaterThan(100);
    expect(moved).toBeGreaterThan(100);
    expect(lost).toBeGreaterThan(0);
    if (isLong)
      process.stderr.write(`depth ${depth}: ${worlds} worlds, ${finished} finished, ${lost} lost\n`);
  },
  limit_ms,
);

/** A way that is too deep to be found in the time of a test, and was found in a longer one. */
const lateRun = [
  "g0 sends epoch 1 to w0",
  "g0 loses its stream",
  "g0 claims epoch 2",
  "g0 sends epoch 2 to w1",
  "epoch 1 arrives at w0",
  "w0 makes 0@w0e1",
  "w0 makes 1@w0e1",
  "epoch 2 arrives at w1",
  "g0 hears the start",
  "w1 makes 0@w1e2",
  "g0 hears token 0",
  "w1 dies",
  "g0 loses its stream",
  "g0 does not find it at w1",
  "g0 claims epoch 3",
  "g0 sends epoch 3 to w0",
  "the client comes back at g1",
];

test("a run of an epoch that is over is not taken for the one that was told, although its worker is on the way", () => {
  let world = firstWorld(2);
  for (const name of lateRun) {
    const step = stepsFrom(world).find((one) => one.name === name);
    if (step === undefined) throw new Error(`"${name}" cannot happen here`);
    world = step.next;
  }
  expect(stepsFrom(world).map(({ name }) => name)).toContain("g1 has what w0 never had");
  expect(explore(world, 9).worlds).toBeGreaterThan(100);
});
