/** From what a user names (a GGUF file, a checkpoint's folder or its digest) to a checkpoint in the store. */
import { realpathSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { AdapterManifest, Manifest } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { checkpointDigest } from "../../schema/ids.ts";
import {
  asAdapter,
  asModel,
  type ConvertOptions,
  type ConvertResult,
  convertAdapter,
  convertGguf,
  readCheckpoint,
  type StoredCheckpoint,
  touchCheckpoint,
} from "../../worker/checkpoints/import.ts";
import { CommandFailure } from "./failure.ts";
import { formatProgress, type StatusLine } from "./terminal/progress.ts";

interface Manifests {
  readonly model: Manifest;
  readonly adapter: AdapterManifest;
}

const converters: {
  readonly [kind in keyof Manifests]: (options: ConvertOptions) => Promise<ConvertResult<Manifests[kind]>>;
} = { model: convertGguf, adapter: convertAdapter };

/**
 * Converts the file of a model or of an adapter into the store, with progress on the status line. Errors: those of
 * `convertGguf`.
 */
export async function convertIntoStore<K extends keyof Manifests>(
  kind: K,
  source: string,
  { store_dir, disk_bytes }: { readonly store_dir: string; readonly disk_bytes: number | undefined },
  status: StatusLine,
  signal: AbortSignal,
): Promise<ConvertResult<Manifests[K]>> {
  requireFile(source);
  try {
    const on_progress = ({ bytes_done, bytes_total }: { bytes_done: number; bytes_total: number }) =>
      status.show(`converting ${basename(source)} ${formatProgress(bytes_done, bytes_total)}`);
    const converted = await converters[kind]({ source, store_dir, disk_bytes, on_progress, signal });
    // Whoever converts it again wants it: it must not be the next to be evicted.
    if (converted.already_present) await touch(store_dir, converted.digest);
    return converted;
  } finally {
    status.clear();
  }
}

/**
 * The manifest of a model's checkpoint that is in the store already; null when the text names a file to convert. Throws
 * CommandFailure when it names nothing that exists, `checkpoint_unsupported` for an adapter.
 */
export async function findInStore(source: string, store_dir: string): Promise<Manifest | null> {
  const found = await findCheckpoint(source, store_dir);
  return found === null ? null : asModel(found).manifest;
}

/** The same of an adapter's checkpoint. */
export async function findAdapterInStore(source: string, store_dir: string): Promise<AdapterManifest | null> {
  const found = await findCheckpoint(source, store_dir);
  return found === null ? null : asAdapter(found).manifest;
}

async function findCheckpoint(source: string, store_dir: string): Promise<StoredCheckpoint | null> {
  if (checkpointDigest.safeParse(source).success) {
    const folder = join(store_dir, source);
    if (!isThere(folder)) {
      throw new CommandFailure(`the store ${store_dir} has no checkpoint ${source}`, {
        advice: "'sllm convert <file.gguf>' makes one.",
      });
    }
    await touch(store_dir, source);
    return await readCheckpoint(folder);
  }
  requireFile(source);
  if (!statSync(source).isDirectory()) return null;
  const found = await readCheckpoint(source);
  const { digest } = found;
  const expected = join(store_dir, digest);
  if (!isThere(expected) || realpathSync(expected) !== realpathSync(source)) {
    throw new CommandFailure(`the checkpoint ${resolve(source)} is not in the store ${store_dir}`, {
      advice: `Workers look there. Copy it: cp -r ${resolve(source)} ${expected}`,
    });
  }
  await touch(store_dir, digest);
  return found;
}

/** A store that takes no marks evicts nothing either. */
async function touch(store_dir: string, digest: string): Promise<void> {
  await touchCheckpoint(store_dir, digest).catch((error: unknown) => {
    if (!(error instanceof SllmError)) throw error;
  });
}

function requireFile(path: string): void {
  if (isThere(path)) return;
  throw new CommandFailure(`there is no file ${path}`, {
    advice: "Give a GGUF file, the folder of a checkpoint, or the digest of one in the store.",
  });
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
