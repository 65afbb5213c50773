/**
 * The reservation book of a store: whoever wants to write a checkpoint writes down how much before it looks whether
 * that fits, so that everybody sees everybody. The earlier one wins, by the time of the file and then its name. Then
 * evictions make the room, and nobody else takes it.
 */
import { stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { checkpointFiles } from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { evict, type Protection, protectionOf, type StoreEntry, storeEntries } from "./eviction.ts";
import { createOwned, fileTickMs, listOwned, madeAtMs, type OwnedFile, removeOwned } from "./owned-files.ts";

export interface Room {
  readonly store_dir: string;
  readonly bytes: number;
  /** Bytes that checkpoints may take in all; undefined: what the disk has. */
  readonly disk_bytes: number | undefined;
  /** Mark of the temporary folder that the bytes go into. */
  readonly owner: string;
}

/** Holds the room until `release`, which the caller calls once the checkpoint is there or given up. */
export async function reserveRoom(room: Room): Promise<{ release(): Promise<void> }> {
  const own = await createOwned(room.store_dir, "reserved", room.bytes.toString(16), room.owner);
  const release = () => removeOwned(room.store_dir, own);
  try {
    // Now everybody who could have come before is to be seen.
    await new Promise((resolve) => setTimeout(resolve, fileTickMs));
    if (!(await makeRoom(room, own))) throw await diskFull(room);
    return { release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Evicts as little as suffices; false, with nothing evicted, when all that may go would not. */
async function makeRoom(room: Room, own: OwnedFile): Promise<boolean> {
  for (;;) {
    const missing = await shortage(room, own);
    if (missing <= 0) return true;
    const { free } = await evictable(room.store_dir);
    const [victim] = free;
    const enough = free.reduce((sum, entry) => sum + entry.bytes, 0) >= missing;
    if (victim === undefined || !enough) return false;
    await evict(room.store_dir, victim.digest);
  }
}

/** Evicts until the checkpoints fit the budget, as far as that is allowed. Returns what was evicted. */
export async function trimStore(
  store_dir: string,
  disk_bytes: number,
  beforeEach: (digest: string) => Promise<void>,
): Promise<string[]> {
  const evicted: string[] = [];
  for (;;) {
    const entries = await storeEntries(store_dir);
    const reserved = (await listOwned(store_dir, "reserved")).reduce((sum, r) => sum + reservedBytes(r), 0);
    const used = entries.reduce((sum, entry) => sum + entry.bytes, 0);
    const { free } = await evictable(store_dir);
    const victim = free.find((entry) => !evicted.includes(entry.digest));
    if (used + reserved <= disk_bytes || victim === undefined) return evicted;
    await beforeEach(victim.digest);
    if ((await protectionOf(store_dir, victim)) === null) await evict(store_dir, victim.digest);
    evicted.push(victim.digest);
  }
}

/** Bytes that are missing for a reservation, counting those that are older. */
async function shortage(room: Room, own: OwnedFile): Promise<number> {
  const ownMs = (await madeAtMs(room.store_dir, own)) ?? 0;
  let others = 0;
  let unwritten = 0;
  for (const other of await listOwned(room.store_dir, "reserved")) {
    const otherMs = await madeAtMs(room.store_dir, other);
    const isLater = otherMs === null || otherMs > ownMs || (otherMs === ownMs && other.name >= own.name);
    if (isLater) continue;
    others += reservedBytes(other);
    unwritten += Math.max(0, reservedBytes(other) - (await writtenBytes(room.store_dir, other)));
  }
  const { bavail, bsize } = await statfs(room.store_dir);
  const free = bavail * bsize - limits.convert_spare_bytes - unwritten;
  const used = (await storeEntries(room.store_dir)).reduce((sum, entry) => sum + entry.bytes, 0);
  const budget = (room.disk_bytes ?? Number.POSITIVE_INFINITY) - used - others;
  return room.bytes - Math.min(free, budget);
}

function reservedBytes({ payload }: OwnedFile): number {
  return Number.parseInt(payload, 16);
}

/** What the owner of a reservation has written of it so far. */
async function writtenBytes(storeDir: string, { owner }: OwnedFile): Promise<number> {
  const weights = join(storeDir, `.incoming-${owner}`, checkpointFiles.weights);
  return await stat(weights).then(
    ({ blocks }) => blocks * 512,
    () => 0,
  );
}

async function evictable(storeDir: string) {
  const free: StoreEntry[] = [];
  const kept = new Map<Protection, number>();
  for (const entry of await storeEntries(storeDir)) {
    const why = await protectionOf(storeDir, entry);
    if (why === null) free.push(entry);
    else kept.set(why, (kept.get(why) ?? 0) + 1);
  }
  return { free, kept };
}

async function diskFull({ store_dir, bytes, disk_bytes }: Room): Promise<SllmError> {
  const { bavail, bsize } = await statfs(store_dir);
  const { free, kept } = await evictable(store_dir);
  const stay = [...kept].map(([why, count]) => `${count} ${why}`).join(", ");
  const needed = bytes + limits.convert_spare_bytes;
  const space =
    disk_bytes === undefined
      ? `needs ${needed} bytes on the store's disk, ${bavail * bsize} are free`
      : `needs ${bytes} bytes of the ${disk_bytes} that checkpoints may take; on the disk ${bavail * bsize} are free`;
  const evictions =
    kept.size === 0 ? "" : `; of the checkpoints there ${free.length} could go (${stay} stay)`;
  return new SllmError("disk_full", `The checkpoint ${space}${evictions}.`);
}
