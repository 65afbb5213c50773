/** Waits for a state that other processes reach in their own time. */

/**
 * Calls `probe` until it returns something other than undefined, null or false, and returns that. Throws after
 * `within_ms`, with the error of the last probe if there was one.
 */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined | null | false> | T | undefined | null | false,
  within_ms = 10_000,
): Promise<T> {
  const end = performance.now() + within_ms;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== null && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`not within ${within_ms} ms: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
