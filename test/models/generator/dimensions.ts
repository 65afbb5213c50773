/** Chooses dimensions so that a model comes near a wanted size and keeps the proportions of real ones. */
import type { Pooling } from "../../../schema/vocab.ts";
import { type Architecture, type Dimensions, feedForwardParts, tensorsOf } from "./architectures.ts";
import { blockFormats, type WeightType } from "./random-blocks.ts";

/** Multiples of 256, so that every GGML type applies. */
const widths = [256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 8192];
const mostLayers = 512;
/** Real models have about one layer per 96 of width: 21 at 2,048, 43 at 4,096. */
const widthPerLayer = 96;

export interface Wish {
  readonly architecture: Architecture;
  readonly type: WeightType;
  readonly size_bytes: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly tied: boolean;
  /** Exactly so many layers, whatever the proportions: the more, the more and the smaller the tensors. */
  readonly layers?: number | undefined;
  readonly pooling?: Pooling | undefined;
}

/** Bytes of a tensor in the file, in the model's type unless it is always F32. */
export function tensorBytes(kind: string, shape: readonly number[], type: WeightType): number {
  const format = blockFormats[kind === "weight" ? type : "f32"];
  return (shape.reduce((a, b) => a * b, 1) / format.elements) * format.bytes;
}

/** Bytes of all weights of a model. */
export function weightBytes(dimensions: Dimensions, type: WeightType): number {
  return tensorsOf(dimensions).reduce((sum, { kind, shape }) => sum + tensorBytes(kind, shape, type), 0);
}

/** Dimensions whose weights come nearest to the wanted size among sensible proportions. */
export function chooseDimensions(wish: Wish): Dimensions {
  let best: Dimensions | null = null;
  let bestPenalty = Number.POSITIVE_INFINITY;
  for (const embedding of widths) {
    const dimensions = adjustFeedForward(layersFor(wish, embedding), wish);
    const shape = Math.abs(Math.log((dimensions.layers * widthPerLayer) / embedding));
    const size = Math.abs(Math.log(weightBytes(dimensions, wish.type) / wish.size_bytes));
    // A wrong size is worse than odd proportions.
    const penalty = shape + 20 * size;
    if (penalty < bestPenalty) [best, bestPenalty] = [dimensions, penalty];
  }
  if (best === null) throw new Error("there are no widths");
  return best;
}

function layersFor(wish: Wish, embedding: number): Dimensions {
  const { architecture, vocabulary, context, tied, pooling } = wish;
  const width = (2.75 * embedding) / Math.sqrt(feedForwardParts(architecture));
  const feed_forward = Math.max(256, Math.round(width / 256) * 256);
  const base = { architecture, embedding, feed_forward, vocabulary, context, tied, pooling };
  const none = weightBytes({ ...base, layers: 0 }, wish.type);
  const one = weightBytes({ ...base, layers: 1 }, wish.type) - none;
  const layers = wish.layers ?? Math.round((wish.size_bytes - none) / one);
  return { ...base, layers: Math.min(mostLayers, Math.max(1, layers)) };
}

/** Widens or narrows the feed-forward part by up to half to come nearer to the size. */
function adjustFeedForward(dimensions: Dimensions, wish: Wish): Dimensions {
  const wider = { ...dimensions, feed_forward: dimensions.feed_forward + 256 };
  const step = weightBytes(wider, wish.type) - weightBytes(dimensions, wish.type);
  const steps = Math.round((wish.size_bytes - weightBytes(dimensions, wish.type)) / step);
  const least = Math.max(256, Math.round(dimensions.feed_forward / 512) * 256);
  const most = least * 3;
  const feed_forward = Math.min(most, Math.max(least, dimensions.feed_forward + 256 * steps));
  return { ...dimensions, feed_forward };
}
