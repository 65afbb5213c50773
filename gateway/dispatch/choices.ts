/** Several answers to one request: as many generations of one prompt, told as one run. */
import type { GenerationRequest, GenerationRun, GenerationUpdate } from "./updates.ts";

/** The odd constant nearest to 2^64 / golden ratio: seeds of neighbouring requests do not meet. */
const seedStep = 0x9e3779b97f4a7c15n;

/** The first choice has the seed itself, so that asking for more answers does not change it. */
export function seedOfChoice(seed: string, choice: number): string {
  return BigInt.asUintN(64, BigInt(seed) + BigInt(choice) * seedStep).toString();
}

/**
 * Starts `n` generations. The run has the first one's id, its updates are those of all in the order they come, texts and
 * ends with their choice. The first failure ends it, as does its reader: the others are cancelled.
 */
export function startChoices(
  start: (request: GenerationRequest) => GenerationRun,
  request: GenerationRequest,
  n: number,
): GenerationRun {
  const first = start(request);
  if (n === 1) return first;
  const runs = [first];
  for (let choice = 1; choice < n; choice++) {
    const seed = seedOfChoice(request.sampling.seed, choice);
    runs.push(start({ ...request, sampling: { ...request.sampling, seed } }));
  }
  return { generation_id: first.generation_id, updates: mergeUpdates(runs) };
}

interface Arrival {
  readonly choice: number;
  readonly result: IteratorResult<GenerationUpdate, void>;
}

async function* mergeUpdates(runs: readonly GenerationRun[]): AsyncGenerator<GenerationUpdate, void> {
  const pending = new Map<number, Promise<Arrival>>();
  const ask = (choice: number, run: GenerationRun) =>
    pending.set(
      choice,
      run.updates.next().then((result) => ({ choice, result })),
    );
  for (const [choice, run] of runs.entries()) ask(choice, run);
  try {
    while (pending.size > 0) {
      const { choice, result } = await Promise.race(pending.values());
      pending.delete(choice);
      const run = runs[choice];
      if (result.done === true || run === undefined) continue;
      // The one that came goes to the end, so that a fast choice does not keep the others from being read.
      ask(choice, run);
      const update = result.value;
      yield update.type === "text" || update.type === "done" ? { ...update, choice } : update;
    }
  } finally {
    // What is under way fails or ends with its run; nobody waits for it any more.
    for (const next of pending.values()) next.catch(() => undefined);
    await Promise.all(runs.map((run) => run.updates.return()));
  }
}
