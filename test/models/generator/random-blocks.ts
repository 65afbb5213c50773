/**
 * Random weights in the block formats of GGML. A pool of random blocks is encoded once per type and scale, then
 * tensors read it round and round from different places: gigabytes cost no more than copying.
 */

export const weightTypes = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"] as const;
export type WeightType = (typeof weightTypes)[number];

/** A uniform random source with 32 bits a draw; the same seed gives the same numbers everywhere (sfc32). */
export function randomSource(seed: number): () => number {
  let a = seed | 0;
  let b = (seed ^ 0x9e3779b9) | 0;
  let c = 0x243f6a88;
  let counter = 1;
  const draw = () => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + result;
    return result >>> 0;
  };
  for (let i = 0; i < 16; i++) draw();
  return draw;
}

/** Nearest half-precision number below in magnitude; subnormals included. */
function halfBits(value: number): number {
  const bits = float32Bits(value);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 112;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | 0x7bff;
  if (exponent > 0) return sign | (exponent << 10) | (mantissa >>> 13);
  if (exponent < -10) return sign;
  return sign | ((mantissa | 0x800000) >>> (14 - exponent));
}

const scratch = new DataView(new ArrayBuffer(4));
function float32Bits(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getUint32(0);
}

interface BlockFormat {
  readonly elements: number;
  readonly bytes: number;
  /** Writes one block of random values, uniform in [-amplitude, amplitude], at `at`. */
  write(view: DataView, at: number, amplitude: number, draw: () => number): void;
}

const signed = (draw: () => number) => draw() / 2 ** 31 - 1;

function fillRandom(view: DataView, at: number, bytes: number, draw: () => number): void {
  for (let i = 0; i < bytes; i += 4) view.setUint32(at + i, draw(), true);
}

export const blockFormats: Readonly<Record<WeightType, BlockFormat>> = {
  f32: {
    elements: 1,
    bytes: 4,
    write: (view, at, amplitude, draw) => view.setFloat32(at, amplitude * signed(draw), true),
  },
  f16: {
    elements: 1,
    bytes: 2,
    write: (view, at, amplitude, draw) => view.setUint16(at, halfBits(amplitude * signed(draw)), true),
  },
  bf16: {
    elements: 1,
    bytes: 2,
    write: (view, at, amplitude, draw) =>
      view.setUint16(at, float32Bits(amplitude * signed(draw)) >>> 16, true),
  },
  q8_0: {
    elements: 32,
    bytes: 34,
    write(view, at, amplitude, draw) {
      view.setUint16(at, halfBits(amplitude / 128), true);
      fillRandom(view, at + 2, 32, draw);
    },
  },
  q4_0: {
    elements: 32,
    bytes: 18,
    write(view, at, amplitude, draw) {
      view.setUint16(at, halfBits(amplitude / 8), true);
      fillRandom(view, at + 2, 16, draw);
    },
  },
  q4_k: {
    elements: 256,
    bytes: 144,
    write(view, at, amplitude, draw) {
      // Every value is d * scale * q - dmin * min with q in 0..15; scales and mins are 1, so 7.5 d centres it.
      view.setUint16(at, halfBits(amplitude / 7.5), true);
      view.setUint16(at + 2, halfBits(amplitude), true);
      for (let i = 0; i < 8; i++) view.setUint8(at + 4 + i, 1);
      for (let i = 8; i < 12; i++) view.setUint8(at + 4 + i, 0x11);
      fillRandom(view, at + 16, 128, draw);
    },
  },
  q6_k: {
    elements: 256,
    bytes: 210,
    write(view, at, amplitude, draw) {
      fillRandom(view, at, 192, draw);
      for (let i = 0; i < 16; i++) view.setInt8(at + 192 + i, 1);
      view.setUint16(at + 208, halfBits(amplitude / 32), true);
    },
  },
};

const poolBytes = 2 * 1024 * 1024;

/** A prime near `n`, so that rows of no length fall on the same blocks of the pool again and again. */
function primeBelow(n: number): number {
  for (let candidate = n; candidate > 2; candidate--) {
    let prime = candidate % 2 !== 0;
    for (let i = 3; prime && i * i <= candidate; i += 2) prime = candidate % i !== 0;
    if (prime) return candidate;
  }
  return 2;
}

/** Pieces of random weights that follow each other, of any length in bytes. */
export class RandomWeights {
  readonly #seed: number;
  readonly #pools = new Map<string, Uint8Array>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Yields `bytes` bytes of whole blocks; tensor number `index` decides where in the pool they begin. */
  *pieces(type: WeightType, standardDeviation: number, bytes: number, index: number): Generator<Uint8Array> {
    const pool = this.#pool(type, standardDeviation);
    const { bytes: blockBytes } = blockFormats[type];
    const blocks = pool.length / blockBytes;
    let at = (randomSource(this.#seed + index)() % blocks) * blockBytes;
    for (let left = bytes; left > 0; ) {
      const piece = pool.subarray(at, Math.min(pool.length, at + left));
      yield piece;
      left -= piece.length;
      at = 0;
    }
  }

  #pool(type: WeightType, standardDeviation: number): Uint8Array {
    const key = `${type} ${standardDeviation}`;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    const format = blockFormats[type];
    const blocks = primeBelow(Math.floor(poolBytes / format.bytes));
    const pool = new Uint8Array(blocks * format.bytes);
    const view = new DataView(pool.buffer);
    const draw = randomSource(this.#seed);
    // A uniform distribution on [-a, a] has the standard deviation a / sqrt(3).
    const amplitude = standardDeviation * Math.sqrt(3);
    for (let i = 0; i < blocks; i++) format.write(view, i * format.bytes, amplitude, draw);
    this.#pools.set(key, pool);
    return pool;
  }
}
