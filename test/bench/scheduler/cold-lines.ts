/**
 * What memory costs that was not touched for a while: at 200 requests a second nothing of a request's code and data is in
 * this core's caches when the next one comes, if the machine's other cores, or its other tenants, have work.
 */
import { quantile } from "../statistics.ts";

const line_bytes = 64;
const chain_bytes = 256 * 1024;
const rounds = 50;

/** Median nanoseconds to follow a chain to another cache line: at once after the last walk, and `gap_ms` later. */
export function measureLines(gap_ms: number): { readonly warm_ns: number; readonly cold_ns: number } {
  const chain = randomChain();
  return { warm_ns: walks(chain, 0), cold_ns: walks(chain, gap_ms) };
}

/** The processor works on nothing else meanwhile: it is not put to sleep, and its clock does not fall. */
function walks(chain: Int32Array, gap_ms: number): number {
  const lines = chain_bytes / line_bytes;
  const times_ns: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const until_ms = performance.now() + gap_ms;
    while (performance.now() < until_ms);
    const begin_ms = performance.now();
    let at = 0;
    for (let i = 0; i < lines; i++) at = chain[at] ?? 0;
    if (at !== 0) throw new Error("the chain does not close");
    times_ns.push(((performance.now() - begin_ms) * 1e6) / lines);
  }
  return quantile(times_ns, 0.5);
}

/** Each line names another one, all of them in one ring, in an order that no processor guesses. */
function randomChain(): Int32Array {
  const step = line_bytes / Int32Array.BYTES_PER_ELEMENT;
  const keys = crypto.getRandomValues(new Uint32Array(chain_bytes / line_bytes));
  const order = [...keys.keys()].sort((a, b) => (keys[a] ?? 0) - (keys[b] ?? 0));
  const chain = new Int32Array(chain_bytes / Int32Array.BYTES_PER_ELEMENT);
  for (const [i, line] of order.entries()) chain[line * step] = (order[(i + 1) % order.length] ?? 0) * step;
  return chain;
}
