/** Writes GGUF models with random weights of a given architecture, size and type; see README.md. Also a library. */
import { parseArgs } from "node:util";
import { type Pooling, poolings } from "../../schema/vocab.ts";
import {
  type Architecture,
  architectures,
  metadataOf,
  type TensorPlan,
  tensorsOf,
} from "./generator/architectures.ts";
import { chooseDimensions, tensorBytes } from "./generator/dimensions.ts";
import {
  type GgufFileTensor,
  type MetadataPair,
  writeGgufFile,
  writeSplitGguf,
} from "./generator/gguf-file.ts";
import { RandomWeights, type WeightType, weightTypes } from "./generator/random-blocks.ts";
import { sampleTokens, sampleVocabulary, syntheticVocabulary } from "./generator/vocabulary.ts";

export interface ModelWish {
  readonly architecture: Architecture;
  /** Wanted size of the weights; the result is near it, never below one layer of width 256. */
  readonly size_bytes: number;
  readonly type: WeightType;
  /** Path of the file; parts get their numbers in front of the ending `.gguf`. */
  readonly out: string;
  readonly seed?: number;
  /** The sample model's tokenizer, or a synthetic one with so many tokens. */
  readonly vocabulary?: "sample" | number;
  readonly context_tokens?: number;
  /** Number of files. */
  readonly split?: number;
  /** The output layer is the token table. gemma3 always is. */
  readonly tied?: boolean;
  /** Number of layers, at most 512; chosen to suit the size if left out. */
  readonly layers?: number | undefined;
  /** Makes vectors, or scores, instead of text. bert always has one. */
  readonly pooling?: Pooling | undefined;
}

export interface MadeModel {
  readonly paths: readonly string[];
  /** Bytes of all tensors. */
  readonly weights_bytes: number;
  readonly parameters: number;
  readonly layers: number;
  readonly embedding: number;
}

/** Numbers of the types in GGUF files. */
const typeNumbers: Readonly<Record<WeightType, number>> = {
  f32: 0,
  f16: 1,
  bf16: 30,
  q8_0: 8,
  q4_0: 2,
  q4_k: 12,
  q6_k: 14,
};

/** Writes the model. The same wish gives the same bytes. */
export async function makeModel(wish: ModelWish): Promise<MadeModel> {
  const { architecture, type, size_bytes, seed = 1, vocabulary = "sample", split = 1, tied = false } = wish;
  const dimensions = chooseDimensions({
    architecture,
    type,
    size_bytes,
    vocabulary: vocabulary === "sample" ? sampleTokens : vocabulary,
    context: wish.context_tokens ?? 4096,
    tied,
    layers: wish.layers,
    pooling: wish.pooling ?? (architecture === "bert" ? "mean" : undefined),
  });
  const tokenizer = vocabulary === "sample" ? await sampleVocabulary() : syntheticVocabulary(vocabulary);
  const name = `Random ${architecture} ${type} ${seed}`;
  const pairs: MetadataPair[] = [["general.name", "string", name], ...metadataOf(dimensions), ...tokenizer];
  const weights = new RandomWeights(seed);
  const tensors = tensorsOf(dimensions).map((plan, index) => fileTensor(plan, type, weights, index));
  const paths = split > 1 ? writeSplitGguf(wish.out, pairs, tensors, split) : [wish.out];
  if (split <= 1) writeGgufFile(wish.out, pairs, tensors);
  return {
    paths,
    weights_bytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    layers: dimensions.layers,
    embedding: dimensions.embedding,
  };
}

function fileTensor(
  plan: TensorPlan,
  type: WeightType,
  weights: RandomWeights,
  index: number,
): GgufFileTensor {
  const { name, shape, kind, standard_deviation } = plan;
  const stored = kind === "weight" ? type : "f32";
  const bytes = tensorBytes(kind, shape, type);
  const data = () =>
    kind === "ones" ? [onesOf(bytes)] : weights.pieces(stored, standard_deviation, bytes, index);
  return { name, shape, type: typeNumbers[stored], bytes, data };
}

function onesOf(bytes: number): Uint8Array {
  return new Uint8Array(new Float32Array(bytes / 4).fill(1).buffer);
}

const usage = `Writes a GGUF model with random weights.

  bun test/models/make-model.ts --architecture llama --size 1GB --type f16 --out model.gguf

  --architecture  ${architectures.join(", ")}
  --size          size of the weights: 500MB, 1GB, 1.5GiB or bytes
  --type          ${weightTypes.join(", ")}
  --out           path that ends in .gguf
  --seed          number; the same one gives the same bytes (1)
  --vocabulary    sample, or synthetic:<tokens> (sample)
  --context       tokens the model claims to be trained for (4096)
  --split         number of files (1)
  --tied          the output layer is the token table
  --layers        number of layers, 1 to 512 (as many as suit the size)
  --pooling       ${poolings.join(", ")}: makes vectors, or scores, instead of text
`;

/** Bytes of a text such as 1.5GB (powers of 1000), 1GiB (powers of 1024) or 4096. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMGT]i?)?B?$/i.exec(text.trim());
  if (match === null) throw new RangeError(`not a size: ${text}`);
  const [, digits = "", unit = ""] = match;
  const power = unit === "" ? 0 : "KMGT".indexOf(unit.charAt(0).toUpperCase()) + 1;
  return Math.round(Number(digits) * (unit.length === 2 ? 1024 : 1000) ** power);
}

function oneOf<T extends string>(words: readonly T[], value: string | undefined, option: string): T {
  const found = words.find((word) => word === value);
  if (found === undefined) throw new RangeError(`--${option} must be one of ${words.join(", ")}`);
  return found;
}

function wholeNumber(text: string, option: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new RangeError(`--${option} must be a whole number`);
  return Number(text);
}

function parseWish(args: string[]): ModelWish | null {
  const { values } = parseArgs({
    args,
    options: {
      architecture: { type: "string" },
      size: { type: "string" },
      type: { type: "string" },
      out: { type: "string" },
      seed: { type: "string", default: "1" },
      vocabulary: { type: "string", default: "sample" },
      context: { type: "string", default: "4096" },
      split: { type: "string", default: "1" },
      tied: { type: "boolean", default: false },
      layers: { type: "string" },
      pooling: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  if (!values.out?.endsWith(".gguf")) throw new RangeError("--out must be a path that ends in .gguf");
  const synthetic = values.vocabulary.startsWith("synthetic:");
  if (!synthetic && values.vocabulary !== "sample")
    throw new RangeError("--vocabulary: sample or synthetic:<tokens>");
  return {
    architecture: oneOf(architectures, values.architecture, "architecture"),
    size_bytes: parseSize(values.size ?? ""),
    type: oneOf(weightTypes, values.type, "type"),
    out: values.out,
    seed: wholeNumber(values.seed, "seed"),
    vocabulary: synthetic
      ? wholeNumber(values.vocabulary.slice("synthetic:".length), "vocabulary")
      : "sample",
    context_tokens: wholeNumber(values.context, "context"),
    split: wholeNumber(values.split, "split"),
    tied: values.tied,
    layers: values.layers === undefined ? undefined : wholeNumber(values.layers, "layers"),
    pooling: values.pooling === undefined ? undefined : oneOf(poolings, values.pooling, "pooling"),
  };
}

if (import.meta.main) {
  const wish = parseWish(process.argv.slice(2));
  if (wish === null) process.stdout.write(usage);
  else process.stdout.write(`${JSON.stringify(await makeModel(wish))}\n`);
}
