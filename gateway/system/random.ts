/** Randomness of the platform's cryptographic source. Bound in gateway/main. */
import type { Random } from "../ports.ts";

/**
 * Drawn at once and handed out in pieces: a draw costs much the same for 16 bytes as for some thousand, and requests need
 * several. Platforms that refuse randomness outside a request are asked within the first one.
 */
const pool_bytes = 4_096;
let pool = new Uint8Array(0);
let used = 0;

export const systemRandom: Random = {
  bytes: (count) => {
    if (count > pool_bytes) throw new RangeError(`at most ${pool_bytes} random bytes at once`);
    if (used + count > pool.length) {
      pool = crypto.getRandomValues(new Uint8Array(pool_bytes));
      used = 0;
    }
    used += count;
    const drawn = pool.slice(used - count, used);
    // What was handed out is nobody else's to find here.
    pool.fill(0, used - count, used);
    return drawn;
  },
};
