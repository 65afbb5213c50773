/** What a conversion is asked for, what it gives back, and what its steps share. */
import type { AnyManifest, Manifest } from "../../../schema/checkpoint/manifest.ts";
import type { CheckpointFacts } from "./checkpoint-kinds.ts";
import type { SourceTensor } from "./gguf-splits.ts";
import type { MergedHeader } from "./gguf-writer.ts";
import type { LayoutPlanner } from "./layout.ts";
import type { Xxh3 } from "./weights.ts";

export interface ConvertOptions {
  /** Path of a GGUF file, or of any part of a split one. */
  readonly source: string;
  /** Folder of checkpoints; made if it is missing. */
  readonly store_dir: string;
  /** Bytes that checkpoints may take there in all; what the disk has if left out. Others may be evicted for it. */
  readonly disk_bytes?: number | undefined;
  /** Called often, with growing bytes_done; a store that holds a damaged copy makes it start over once. */
  readonly on_progress?: ((progress: ConvertProgress) => void) | undefined;
  /** Ends the conversion with `cancelled`. */
  readonly signal?: AbortSignal | undefined;
}

export interface ConvertProgress {
  readonly bytes_done: number;
  readonly bytes_total: number;
}

export interface ConvertResult<M extends AnyManifest = Manifest> {
  readonly digest: string;
  /** The checkpoint's folder: `<store_dir>/<digest>`. */
  readonly directory: string;
  readonly manifest: M;
  /** The store held this checkpoint, whole; nothing was written. */
  readonly already_present: boolean;
}

/** What the native library does for a conversion. */
export interface ConvertTools {
  readonly plan: LayoutPlanner;
  readonly xxh3: Xxh3;
}

/** One conversion on its way: what every step needs. */
export interface Conversion {
  readonly options: ConvertOptions;
  readonly tools: ConvertTools;
  readonly header: MergedHeader<SourceTensor>;
  readonly header_sha256: string;
  readonly facts: CheckpointFacts;
}

/** Reports bytes done against the total of this conversion. */
export function progressOf({ options, header }: Conversion): ((bytesDone: number) => void) | undefined {
  const { on_progress } = options;
  if (on_progress === undefined) return undefined;
  return (bytes_done) => on_progress({ bytes_done, bytes_total: header.weights_bytes });
}
