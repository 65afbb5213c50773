/** Where a checkpoint came from, and which version of that. Pure. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Origin } from "../../../schema/checkpoint/manifest.ts";
import type { FileSource } from "./byte-source.ts";
import { sha256Hex } from "./digest.ts";

type SourceFacts = Pick<FileSource, "name" | "bytes" | "modified_ms">;

/** Stands in origin.json; the number grows when the same source would give other content. */
const converter = "sllm gguf-import 1";

/** Names the version of the source by what changes with a file: names, sizes and times of change of its parts. */
export function sourceRevision(sources: readonly SourceFacts[]): string {
  return sha256Hex(
    sources.map(({ name, bytes, modified_ms }) => `${name} ${bytes} ${modified_ms}\n`).join(""),
  );
}

export function originOf(source: string, sources: readonly SourceFacts[], converted_at: string): Origin {
  const uri = pathToFileURL(resolve(source)).href;
  return { uri, revision: sourceRevision(sources), converted_at, converter };
}
