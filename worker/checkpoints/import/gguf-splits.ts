/**
 * A GGUF model in one file or in several parts (`name-00002-of-00005.gguf`). Given any part, finds and reads all of
 * them and checks that they belong together; the result is one model, whatever the number of files.
 */
import { basename, dirname, join } from "node:path";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { type ByteSource, FileSource } from "./byte-source.ts";
import { GgufMetadata } from "./gguf-metadata.ts";
import { type GgufHeader, type GgufPair, type GgufTensor, readGguf } from "./gguf-reader.ts";
import { quoted } from "./header-cursor.ts";

export interface SourceTensor extends GgufTensor {
  /** Where the tensor's data is read from, at its `file_offset`. */
  readonly source: ByteSource;
}

export interface GgufModel {
  /** Metadata of the first part, which is the one that counts; without `split.*`. */
  readonly pairs: readonly GgufPair[];
  readonly tensors: readonly SourceTensor[];
}

/** An opened model; the caller closes it. */
export interface OpenedGguf extends GgufModel {
  readonly sources: readonly FileSource[];
  close(): Promise<void>;
}

interface Part {
  readonly source: FileSource;
  readonly header: GgufHeader;
  readonly metadata: GgufMetadata;
}

/**
 * Opens the file and, when it is a part of a split model, all other parts beside it.
 * Errors: `checkpoint_invalid`, `checkpoint_unsupported`, `io_error`.
 */
export async function openGguf(path: string): Promise<OpenedGguf> {
  const sources: FileSource[] = [];
  const close = async () => {
    await Promise.all(sources.map((source) => source.close()));
  };
  try {
    const given = await openPart(path, sources);
    const parts = await openParts(path, given, sources);
    return { ...mergeParts(parts), sources: parts.map((part) => part.source), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openPart(path: string, sources: FileSource[]): Promise<Part> {
  const source = await FileSource.open(path);
  sources.push(source);
  const header = await readGguf(source);
  return { source, header, metadata: new GgufMetadata(header.pairs) };
}

/** All parts in order. The opened sources are added to `sources` even when this fails. */
async function openParts(path: string, given: Part, sources: FileSource[]): Promise<Part[]> {
  const count = given.metadata.count("split.count") ?? 1;
  if (count <= 1) return [given];
  if (count > limits.gguf_splits) {
    throw new SllmError("checkpoint_unsupported", `${count} parts are more than ${limits.gguf_splits}.`);
  }
  const parts: Part[] = [];
  let headerBytes = 0;
  for (const [i, partPath] of partPaths(path, count).entries()) {
    const part =
      basename(partPath) === basename(path) ? given : await openSibling(partPath, i, count, sources);
    checkPart(part, i, count);
    headerBytes += part.header.header_bytes;
    if (headerBytes > limits.gguf_header_bytes) {
      const message = `The headers of the parts exceed ${limits.gguf_header_bytes} bytes together.`;
      throw new SllmError("checkpoint_unsupported", message);
    }
    parts.push(part);
  }
  return parts;
}

async function openSibling(path: string, i: number, count: number, sources: FileSource[]): Promise<Part> {
  try {
    return await openPart(path, sources);
  } catch (cause) {
    const missing = cause instanceof SllmError && cause.code === "io_error";
    if (!missing) throw cause;
    throw new SllmError("checkpoint_invalid", `Part ${i + 1} of ${count} is needed too. ${cause.message}`, {
      cause,
    });
  }
}

const partName = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/;

/** Paths of all parts, in order; they lie beside the given one. */
function partPaths(path: string, count: number): string[] {
  const [, prefix = "", number = "", total = ""] = partName.exec(basename(path)) ?? [];
  const five = (value: number) => String(value).padStart(5, "0");
  if (total !== five(count) || Number(number) < 1 || Number(number) > count) {
    const wanted = `<name>-00001-of-${five(count)}.gguf`;
    const message = `${basename(path)} is one of ${count} parts; they must be named like ${wanted}.`;
    throw new SllmError("checkpoint_invalid", message);
  }
  return Array.from({ length: count }, (_, i) =>
    join(dirname(path), `${prefix}-${five(i + 1)}-of-${five(count)}.gguf`),
  );
}

function checkPart(part: Part, i: number, count: number): void {
  const problem = (what: string) =>
    new SllmError("checkpoint_invalid", `${part.source.name}: ${what}; the parts do not belong together.`);
  const number = part.metadata.count("split.no");
  if (number !== i) throw problem(`it says it is part ${number === null ? "?" : number + 1}, not ${i + 1}`);
  const total = part.metadata.count("split.count");
  if (total !== count) throw problem(`it says there are ${total ?? "?"} parts, not ${count}`);
}

function mergeParts(parts: readonly Part[]): GgufModel {
  const [first] = parts;
  if (first === undefined) throw new Error("a model has at least one part");
  const tensors: SourceTensor[] = [];
  const seen = new Map<string, string>();
  for (const { source, header } of parts) {
    for (const tensor of header.tensors) {
      const other = seen.get(tensor.name);
      if (other !== undefined) {
        const message = `The tensor ${quoted(tensor.name)} stands in ${other} and in ${source.name}.`;
        throw new SllmError("checkpoint_invalid", message);
      }
      seen.set(tensor.name, source.name);
      tensors.push({ ...tensor, source });
    }
  }
  checkTotals(first, tensors.length, parts);
  return { pairs: first.header.pairs.filter((pair) => !pair.key.startsWith("split.")), tensors };
}

function checkTotals(first: Part, tensors: number, parts: readonly Part[]): void {
  if (tensors === 0) throw new SllmError("checkpoint_invalid", `${first.source.name} holds no tensors.`);
  if (tensors > limits.tensors) {
    throw new SllmError("checkpoint_unsupported", `${tensors} tensors are more than ${limits.tensors}.`);
  }
  const stated = parts.length > 1 ? first.metadata.count("split.tensors.count") : null;
  if (stated !== null && stated !== tensors) {
    const message = `The parts hold ${tensors} tensors together, but ${first.source.name} says ${stated}.`;
    throw new SllmError("checkpoint_invalid", message);
  }
}
