/**
 * Takes checkpoints out of a store to make room: the least recently used first, and only such as nobody would miss.
 * Pinned ones stay, those in use by any process, those that a model names, and the last copy: one whose source is not
 * there any more as it was. An eviction is one rename, so a crash leaves the checkpoint whole or gone; the bytes of a
 * half-finished one are swept by the next process.
 */
import { readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkpointFiles, origin } from "../../../schema/checkpoint/manifest.ts";
import { checkpointDigest } from "../../../schema/ids.ts";
import { openGguf } from "./gguf-splits.ts";
import { incomingFolderName } from "./incoming.ts";
import { isPinned, lastUsedMs, readDeployed } from "./marks.ts";
import { sourceRevision } from "./origin.ts";
import { fileTickMs, listOwned } from "./owned-files.ts";
import { isMissing } from "./system-failure.ts";

/** Why a checkpoint stays. */
export type Protection = "pinned" | "in use" | "deployed" | "last copy";

export interface StoreEntry {
  readonly digest: string;
  /** Of its weights, and of the little beside them. */
  readonly bytes: number;
  /** Last use, or arrival when it was never used. */
  readonly used_ms: number;
}

/** All checkpoints of the store, the least recently used first. */
export async function storeEntries(storeDir: string): Promise<StoreEntry[]> {
  const entries: StoreEntry[] = [];
  for (const digest of await readdir(storeDir)) {
    if (!checkpointDigest.safeParse(digest).success) continue;
    const folder = join(storeDir, digest);
    try {
      const { blocks } = await stat(join(folder, checkpointFiles.weights));
      const { mtimeMs, size } = await stat(join(folder, checkpointFiles.manifest));
      const used_ms = Math.max(mtimeMs, (await lastUsedMs(storeDir, digest)) ?? 0);
      entries.push({ digest, bytes: blocks * 512 + size, used_ms });
    } catch (error) {
      // Evicted meanwhile, or damaged: verify and conversion see to those.
      if (!isMissing(error)) throw error;
    }
  }
  return entries.sort((a, b) => a.used_ms - b.used_ms || (a.digest < b.digest ? -1 : 1));
}

/** Why this checkpoint stays; null when it may go. */
export async function protectionOf(
  storeDir: string,
  { digest, used_ms }: StoreEntry,
): Promise<Protection | null> {
  if (await isPinned(storeDir, digest)) return "pinned";
  if (await isInUse(storeDir, digest)) return "in use";
  const deployed = await readDeployed(storeDir);
  // What came after the last word of a gateway may have been deployed since.
  const isUnknown = deployed === null || deployed.known_at_ms <= used_ms + fileTickMs;
  if (isUnknown || deployed.digests.includes(digest)) return "deployed";
  return (await isSourceThere(join(storeDir, digest))) ? null : "last copy";
}

/**
 * Evicts one checkpoint; false when it was taken into use meanwhile and stays. Leases are looked at again after the
 * rename: who took one before finds the checkpoint back, who comes later does not find it.
 */
export async function evict(storeDir: string, digest: string): Promise<boolean> {
  const folder = join(storeDir, digest);
  const tomb = join(storeDir, await incomingFolderName());
  try {
    await rename(folder, tomb);
  } catch (error) {
    // Another process was faster.
    if (isMissing(error)) return true;
    throw error;
  }
  if (await isInUse(storeDir, digest)) {
    await rename(tomb, folder);
    return false;
  }
  await rm(tomb, { recursive: true, force: true });
  return true;
}

async function isInUse(storeDir: string, digest: string): Promise<boolean> {
  return (await listOwned(storeDir, "using")).some((use) => use.payload === digest);
}

/** Whether the checkpoint could be made again: its source is there with the sizes and times that it had. */
async function isSourceThere(folder: string): Promise<boolean> {
  try {
    const { uri, revision } = origin.parse(
      JSON.parse(await readFile(join(folder, checkpointFiles.origin), "utf8")),
    );
    if (!uri.startsWith("file:")) return false;
    const model = await openGguf(fileURLToPath(uri));
    try {
      return sourceRevision(model.sources) === revision;
    } finally {
      await model.close();
    }
  } catch {
    // Whatever keeps us from seeing the source: it does not count as there.
    return false;
  }
}
