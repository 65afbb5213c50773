/** Randomness of the platform's cryptographic source. Bound in gateway/main. */
import type { Random } from "../ports.ts";

export const systemRandom: Random = {
  bytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
};
