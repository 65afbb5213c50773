/** Several answers to one request: as many generations of one prompt, told as one run. */
import type { GenerationRequest, GenerationRun, GenerationUpdate } from "./updates.ts";

/** The odd constant nearest to 2^64 / golden ratio: seeds of neighbouring requests do not meet. */
const seedStep = 0x9e3779b97f4a7c15n;

/** The first choice has the seed itself, so that asking for more answers does not change it. */
export function seedOfChoice(seed: string, choice: number): string {
  return BigInt.asUintN(64, BigInt(seed) + BigInt(choice) * seedStep).toString();
}

export type StartGeneration = (request: GenerationRequest, signal: AbortSignal) => GenerationRun;

/**
 * Starts `n` generations. The run has the first one's id, its updates are those of all in the order they come, texts and
 * ends with their choice. The first failure ends it, as do its reader and the signal: the others are cancelled.
 */
export function startChoices(
  start: StartGeneration,
  request: GenerationRequest,
  n: number,
  signal: AbortSignal,
): GenerationRun {
  if (n === 1) return start(request, signal);
  const cancel = new AbortController();
  const runs = Array.from({ length: n }, (_, choice) => {
    const seed = seedOfChoice(request.sampling.seed, choice);
    return start(
      { ...request, sampling: { ...request.sampling, seed } },
      AbortSignal.any([signal, cancel.signal]),
    );
  });
  const [first] = runs;
  if (first === undefined) throw new RangeError("there is no choice");
  return { generation_id: first.generation_id, updates: mergeUpdates(runs, cancel) };
}

interface Arrival {
  readonly choice: number;
  readonly result: IteratorResult<GenerationUpdate, void>;
}

async function* mergeUpdates(
  runs: readonly GenerationRun[],
  cancel: AbortController,
): AsyncGenerator<GenerationUpdate, void> {
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
    // Those that wait for their worker hear of it by the signal: a return alone would wait with them.
    cancel.abort();
    // What is under way fails or ends with its run; nobody waits for it any more.
    for (const next of pending.values()) next.catch(() => undefined);
    await Promise.all(runs.map((run) => run.updates.return()));
  }
}
