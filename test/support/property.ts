/** Property tests that can be replayed: the seed comes from SLLM_TEST_SEED or chance and stands in every failure. */
import fc from "fast-check";

const given = process.env.SLLM_TEST_SEED;

/** One seed per test process, so that a failing run is repeated by setting the variable. */
export const testSeed =
  given === undefined || given === "" ? Math.floor(Math.random() * 2 ** 31) : Number(given);

/** Checks a property with the process's seed; a failure names the seed and the shrunk counterexample. */
export function checkProperty<T>(arbitrary: fc.Arbitrary<T>, holds: (value: T) => void, runs = 300): void {
  try {
    fc.assert(fc.property(arbitrary, holds), { seed: testSeed, numRuns: runs });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`SLLM_TEST_SEED=${testSeed} repeats this failure.\n${message}`, { cause: error });
  }
}

/** The same for a property that takes its time: the cases run one after the other. */
export async function checkAsyncProperty<T>(
  arbitrary: fc.Arbitrary<T>,
  holds: (value: T) => Promise<void>,
  runs: number,
): Promise<void> {
  try {
    await fc.assert(fc.asyncProperty(arbitrary, holds), { seed: testSeed, numRuns: runs });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`SLLM_TEST_SEED=${testSeed} repeats this failure.\n${message}`, { cause: error });
  }
}
