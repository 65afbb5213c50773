/** Small LoRA adapters with random weights for generated models and the sample model. The same wish gives the same bytes. */
import { type GgufFileTensor, type MetadataPair, writeGgufFile } from "./gguf-file.ts";
import { randomSource } from "./random-blocks.ts";

/** A tensor of the model and its two dimensions. */
export interface AdapterTarget {
  readonly name: string;
  readonly columns: number;
  readonly rows: number;
}

export interface AdapterWish {
  readonly seed: number;
  readonly architecture?: string;
  readonly rank?: number;
  readonly alpha?: number;
  /** Weights are uniform in plus and minus this. */
  readonly amplitude?: number;
  readonly targets?: readonly AdapterTarget[];
  /** In the place of those that the generator writes, by key. */
  readonly metadata?: readonly MetadataPair[];
}

/** Matrices of the sample model that an adapter changes visibly. */
export const sampleTargets: readonly AdapterTarget[] = [
  { name: "blk.0.attn_q.weight", columns: 256, rows: 256 },
  { name: "blk.0.attn_output.weight", columns: 256, rows: 256 },
];

/** Metadata and tensors of an adapter, for tests that change them. */
export function adapterParts(wish: AdapterWish): { pairs: MetadataPair[]; tensors: GgufFileTensor[] } {
  const {
    seed,
    architecture = "llama",
    rank = 4,
    alpha = rank,
    amplitude = 0.5,
    targets = sampleTargets,
  } = wish;
  const own: MetadataPair[] = [
    ["general.type", "string", "adapter"],
    ["general.architecture", "string", architecture],
    ["general.name", "string", `Random adapter ${seed}`],
    ["adapter.type", "string", "lora"],
    ["adapter.lora.alpha", "float32", alpha],
  ];
  const given = wish.metadata ?? [];
  const pairs = [...own.filter(([key]) => !given.some(([other]) => other === key)), ...given];
  const draw = randomSource(seed);
  const factor = (name: string, columns: number, rows: number): GgufFileTensor => {
    const values = Float32Array.from({ length: columns * rows }, () => (draw() / 2 ** 31 - 1) * amplitude);
    const bytes = new Uint8Array(values.buffer);
    return { name, shape: [columns, rows], type: 0, bytes: bytes.length, data: () => [bytes] };
  };
  const tensors = targets.flatMap(({ name, columns, rows }) => [
    factor(`${name}.lora_a`, columns, rank),
    factor(`${name}.lora_b`, rank, rows),
  ]);
  return { pairs, tensors };
}

/** Writes an adapter. Returns its path. */
export function writeAdapter(path: string, wish: AdapterWish): string {
  const { pairs, tensors } = adapterParts(wish);
  writeGgufFile(path, pairs, tensors);
  return path;
}
