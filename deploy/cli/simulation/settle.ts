/** When everything that could happen has happened, on runtimes with immediates. */

/** Resolves when all promises that can settle have: immediates run after them. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
