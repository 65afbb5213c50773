/** Opens checkpoints that are in a store: a folder counts only when its manifest and the sizes of its files agree. */
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  type AdapterManifest,
  type AnyManifest,
  adapterManifest,
  checkpointFiles,
  checkpointVersion,
  isAdapter,
  isModel,
  type Manifest,
  manifest as manifestSchema,
} from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { digestOf } from "./digest.ts";
import { isMissing, systemFailure, systemReason } from "./system-failure.ts";

/** A checkpoint on disk. */
export interface StoredCheckpoint<M extends AnyManifest = AnyManifest> {
  readonly digest: string;
  readonly directory: string;
  readonly manifest: M;
  readonly header_path: string;
  readonly weights_path: string;
}
export type StoredModel = StoredCheckpoint<Manifest>;
export type StoredAdapter = StoredCheckpoint<AdapterManifest>;

/** The checkpoint as a model's. Errors: `checkpoint_unsupported` when it is none. */
export function asModel(checkpoint: StoredCheckpoint): StoredModel {
  const { manifest, digest } = checkpoint;
  if (isModel(manifest)) return { ...checkpoint, manifest };
  throw new SllmError("checkpoint_unsupported", `The checkpoint ${digest} holds a LoRA adapter, no model.`);
}

/** The checkpoint as an adapter's. Errors: `checkpoint_unsupported` when it is none. */
export function asAdapter(checkpoint: StoredCheckpoint): StoredAdapter {
  const { manifest, digest } = checkpoint;
  if (isAdapter(manifest)) return { ...checkpoint, manifest };
  throw new SllmError("checkpoint_unsupported", `The checkpoint ${digest} holds a model, no LoRA adapter.`);
}

/**
 * Reads a checkpoint's manifest and compares its digest, the name of the folder and the sizes of the files with it. The bytes of the weights
 * are not read: every load checks them by their fast digests.
 * Errors: `checkpoint_invalid`, `checkpoint_unsupported` (another version), `permission_denied`, `io_error`.
 */
export async function readCheckpoint(directory: string): Promise<StoredCheckpoint> {
  const manifest = await readManifest(directory);
  if (basename(directory) !== manifest.digest) {
    const message = `The folder ${basename(directory)} holds the checkpoint ${manifest.digest}.`;
    throw new SllmError("checkpoint_invalid", message);
  }
  const { header, weights } = manifest;
  const header_path = join(directory, checkpointFiles.header);
  const weights_path = join(directory, checkpointFiles.weights);
  await checkSize(header_path, checkpointFiles.header, header.bytes + weights.bytes);
  await checkSize(weights_path, checkpointFiles.weights, weights.bytes);
  return { digest: manifest.digest, directory, manifest, header_path, weights_path };
}

/** manifest.json of a checkpoint's folder. Errors as `readCheckpoint`. */
export async function readManifest(directory: string): Promise<AnyManifest> {
  const path = join(directory, checkpointFiles.manifest);
  const found = await stat(path).catch((cause: unknown) => {
    throw systemFailure(`There is no checkpoint: ${checkpointFiles.manifest}`, cause);
  });
  if (found.size > limits.manifest_bytes) {
    throw new SllmError(
      "checkpoint_invalid",
      `${checkpointFiles.manifest} is larger than ${limits.manifest_bytes} bytes.`,
    );
  }
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw systemFailure(`Cannot read ${checkpointFiles.manifest}`, cause);
  });
  return parseManifest(text);
}

/** Checks the text of a manifest, the digest over its content included. Errors as `readCheckpoint`. */
export function parseManifest(text: string): AnyManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SllmError("checkpoint_invalid", `${checkpointFiles.manifest} is not JSON.`, { cause });
  }
  const version =
    typeof value === "object" && value !== null && "version" in value ? value.version : undefined;
  if (typeof version === "number" && version !== checkpointVersion) {
    const message = `The checkpoint has format version ${version}; this release reads version ${checkpointVersion}.`;
    throw new SllmError("checkpoint_unsupported", message);
  }
  const isOfAdapter = typeof value === "object" && value !== null && "adapter" in value;
  const parsed = (isOfAdapter ? adapterManifest : manifestSchema).safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const message = `${checkpointFiles.manifest}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}.`;
    throw new SllmError("checkpoint_invalid", message, { cause: parsed.error });
  }
  if (digestOf(parsed.data) !== parsed.data.digest) {
    const message = `${checkpointFiles.manifest}: the digest does not belong to the content it lists.`;
    throw new SllmError("checkpoint_invalid", message);
  }
  return parsed.data;
}

async function checkSize(path: string, name: string, bytes: number): Promise<void> {
  const found = await stat(path).catch((cause: unknown) => {
    if (!isMissing(cause)) throw systemFailure(`Cannot look at ${name}`, cause);
    throw new SllmError("checkpoint_invalid", `${name}: ${systemReason(cause)}.`, { cause });
  });
  if (found.isFile() && found.size === bytes) return;
  throw new SllmError("checkpoint_invalid", `${name} has ${found.size} bytes, the manifest says ${bytes}.`);
}
