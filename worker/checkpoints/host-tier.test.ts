/** The host tier on a store led by hand: longer than other files because all tests share that store. */
import { beforeEach, expect, test } from "bun:test";
import type {
  NativeArenaStatus,
  NativeLoadParams,
  NativeLoadStatus,
} from "../../native/bun-ffi-helpers/native.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { begunLoad } from "../../test/support/native-load.ts";
import { tinyContent } from "../../test/support/tiny-checkpoint.ts";
import { LinkQueue } from "../links/link-queue.ts";
import type { CopyStore } from "./copy-store.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";
import { HostTier } from "./host-tier.ts";

const copyBytes = 2 * 4096;

/** A store whose reads end when the test says so. */
class ManualStore implements CopyStore {
  readonly loads: NativeLoadParams[] = [];
  readonly released: bigint[] = [];
  endsAtOnce = false;
  arenaChunks = 100;
  readonly statuses = new Map<bigint, NativeLoadStatus>();

  load(params: NativeLoadParams): bigint {
    const number = BigInt(this.loads.push(params));
    if (this.endsAtOnce) this.finish(number);
    else this.set(number, {});
    return number;
  }

  arena(): NativeArenaStatus {
    const inUse = [...this.statuses.values()].filter((status) => status.state !== "failed").length;
    return {
      arena_bytes: this.arenaChunks * limits.chunk_bytes,
      used_bytes: inUse * limits.chunk_bytes,
      faulted_bytes: 0,
      prefault_bytes: 0,
      prefault_ms: 0,
      prefaulting: false,
      huge_bytes: 0,
    };
  }

  status(load: bigint): NativeLoadStatus {
    const status = this.statuses.get(load);
    if (!status) throw new Error(`no load ${load}`);
    return status;
  }

  release(load: bigint): void {
    if (!this.statuses.delete(load)) throw new Error(`no load ${load}`);
    this.released.push(load);
  }

  set(load: bigint, change: Partial<NativeLoadStatus>): void {
    this.statuses.set(load, {
      ...begunLoad,
      fd: 10 + Number(load),
      bytes_total: copyBytes,
      ...change,
    });
  }

  finish(load: bigint): void {
    this.set(load, { state: "ready", bytes_done: copyBytes, read_ms: 5 });
  }
}

function checkpoint(fill: number): StoredCheckpoint {
  const { manifest } = tinyContent({ fill, xxh3: () => 0xabn });
  const directory = `/data/${manifest.digest}`;
  return { digest: manifest.digest, directory, manifest, header_path: "h", weights_path: `${directory}/w` };
}

let store: ManualStore;
let clock: ManualClock;
let cacheBytes: number;
let link: LinkQueue;
let version: string;
let tier: HostTier;
let evictions: number;

beforeEach(() => {
  store = new ManualStore();
  clock = new ManualClock();
  cacheBytes = 2 * copyBytes;
  version = "1";
  evictions = 0;
  link = new LinkQueue({ link: "disk", parallel: 2, clock });
  tier = new HostTier({
    store,
    clock,
    link,
    cacheBytes: () => cacheBytes,
    fileVersion: () => version,
    process_id: 77,
    onEvicted: () => evictions++,
  });
});

/** Loads a checkpoint to its end and leaves it unused. */
async function useOnce(stored: StoredCheckpoint): Promise<bigint> {
  const lease = await tier.acquire(stored);
  const load = BigInt(store.loads.length);
  store.finish(load);
  lease.release();
  return load;
}

test("fifty users of one checkpoint cause one read and share its descriptor", async () => {
  const leases = await Promise.all(Array.from({ length: 50 }, () => tier.acquire(checkpoint(1))));
  expect(store.loads).toHaveLength(1);
  expect(store.loads[0]).toMatchObject({ weights_bytes: copyBytes, chunk_bytes: 4096 });
  expect(store.loads[0]?.chunk_digests).toEqual(BigUint64Array.of(0xabn, 0xabn));
  expect(new Set(leases.map((lease) => lease.weights_path))).toEqual(new Set(["/proc/77/fd/11"]));
});

test("weights for several devices are read in as many lanes, those for one in the order of the file", async () => {
  await tier.acquire(checkpoint(1));
  await tier.acquire(checkpoint(2), { devices: 4 });
  expect(store.loads.map((load) => load.lanes)).toEqual([1, 4]);
});

test("who comes while the copy is read was not served from memory, who comes later was", async () => {
  const first = await tier.acquire(checkpoint(1));
  expect(first.was_present).toBe(false);
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(false);
  store.finish(1n);
  expect(first.status().state).toBe("ready");
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(true);
});

test("a read that ends at once was a read all the same", async () => {
  store.endsAtOnce = true;
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(false);
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(true);
});

test("a copy whose failure nobody has seen yet is not shared", async () => {
  await tier.acquire(checkpoint(1));
  store.set(1n, { state: "failed", failure: { status_name: "SLLM_E_IO", message: "disk" } });
  expect((await tier.acquire(checkpoint(1))).status().state).toBe("loading");
  expect(store.loads).toHaveLength(2);
});

test("progress wakes the waiting, and the look-out ends with the last load", async () => {
  const lease = await tier.acquire(checkpoint(1));
  let woken = 0;
  void lease.changed().then(() => woken++);
  await clock.advance(25);
  expect(woken).toBe(1);
  expect(tier.placements()[0]).toMatchObject({ tier: "host", state: "loading", bytes_present: 0 });
  store.finish(1n);
  await clock.advance(25);
  expect(tier.placements()[0]).toMatchObject({ state: "present", bytes_present: copyBytes });
  expect(clock.sleeping).toBe(0);
});

test("an unused copy stays as far as the cache allows, the least recently used goes first", async () => {
  const loads: bigint[] = [];
  for (const fill of [1, 2, 3]) loads.push(await useOnce(checkpoint(fill)));
  expect(store.released).toEqual([loads[0] ?? 0n]);
  await useOnce(checkpoint(2));
  expect(store.loads).toHaveLength(3);
  await useOnce(checkpoint(4));
  expect(store.released).toEqual([1n, 3n]);
});

test("copies in use or loading are never evicted, whatever the cache allows", async () => {
  cacheBytes = 0;
  const used = await tier.acquire(checkpoint(1));
  store.finish(1n);
  const loading = await tier.acquire(checkpoint(2));
  tier.trim();
  expect(store.released).toEqual([]);
  used.release();
  expect(store.released).toEqual([1n]);
  loading.release();
  expect(store.released).toEqual([1n, 2n]);
});

test("less room for the cache evicts at the next trim", async () => {
  await useOnce(checkpoint(1));
  expect(store.released).toEqual([]);
  cacheBytes = copyBytes - 1;
  tier.trim();
  expect(store.released).toEqual([1n]);
});

test("a load that finds the arena full evicts as many idle copies as it needs, the least recently used", async () => {
  cacheBytes = 100 * copyBytes;
  store.arenaChunks = 3;
  const inUse = await tier.acquire(checkpoint(1));
  store.finish(1n);
  for (const fill of [2, 3]) await useOnce(checkpoint(fill));
  await tier.acquire(checkpoint(4));
  expect(store.released).toEqual([2n]);
  expect(inUse.status().state).toBe("ready");
});

test("nothing is evicted for a load that would not fit all the same", async () => {
  cacheBytes = 100 * copyBytes;
  store.arenaChunks = 2;
  await tier.acquire(checkpoint(1));
  await useOnce(checkpoint(2));
  store.arenaChunks = 1;
  await tier.acquire(checkpoint(3));
  expect(store.released).toEqual([]);
});

test("a failed copy is seen by its users, freed with the last one and read anew for the next", async () => {
  const first = await tier.acquire(checkpoint(1));
  const second = await tier.acquire(checkpoint(1));
  const failure = { status_name: "SLLM_E_CORRUPT", message: "weights.bin: bad chunk" } as const;
  store.set(1n, { state: "failed", failure });
  expect(first.status().failure).toEqual(failure);
  const third = await tier.acquire(checkpoint(1));
  expect(store.loads).toHaveLength(2);
  first.release();
  expect(store.released).toEqual([]);
  second.release();
  expect(store.released).toEqual([1n]);
  expect(third.status().state).toBe("loading");
});

test("a lease that is released twice is a defect", async () => {
  const lease = await tier.acquire(checkpoint(1));
  lease.release();
  expect(() => lease.release()).toThrow("twice");
});

/** An engine that keeps a copy: counts how often it was asked to let go, and does so when told. */
function keeper() {
  const gone = Promise.withResolvers<void>();
  const state = { asked: 0, letGo: gone.resolve };
  const onEvict = () => {
    state.asked++;
    return gone.promise;
  };
  return { state, onEvict };
}

test("a kept copy is cache: it stays as far as the cache allows and comes back without a read", async () => {
  const lease = await tier.acquire(checkpoint(1));
  store.finish(1n);
  const { state, onEvict } = keeper();
  lease.keep(onEvict);
  tier.trim();
  expect(lease.use()).toBe(true);
  cacheBytes = 0;
  tier.trim();
  expect(state.asked).toBe(0);
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(true);
  expect(store.released).toEqual([]);
});

test("a kept copy is released only when every engine has let it go, and is not shared meanwhile", async () => {
  const leases = [await tier.acquire(checkpoint(1)), await tier.acquire(checkpoint(1))];
  store.finish(1n);
  const [one, other] = [keeper(), keeper()];
  leases[0]?.keep(one.onEvict);
  leases[1]?.keep(other.onEvict);
  cacheBytes = 0;
  tier.trim();
  tier.trim();
  expect([one.state.asked, other.state.asked]).toEqual([1, 1]);
  expect(leases[0]?.use()).toBe(false);
  await tier.acquire(checkpoint(1));
  expect(store.loads).toHaveLength(2);
  one.state.letGo();
  await settle();
  expect(store.released).toEqual([]);
  other.state.letGo();
  await settle();
  expect(store.released).toEqual([1n]);
});

test("a load that needs the room of a kept copy waits until it is free", async () => {
  cacheBytes = 100 * copyBytes;
  store.arenaChunks = 1;
  const lease = await tier.acquire(checkpoint(1));
  store.finish(1n);
  const { state, onEvict } = keeper();
  lease.keep(onEvict);
  const waiting = [tier.acquire(checkpoint(2)), tier.acquire(checkpoint(2))];
  await settle();
  expect([state.asked, store.loads.length]).toEqual([1, 1]);
  state.letGo();
  const [first] = await Promise.all(waiting);
  expect(store.released).toEqual([1n]);
  expect(store.loads).toHaveLength(2);
  expect(first?.was_present).toBe(false);
});

test("an engine that ends while its copy is kept gives it up as any lease does", async () => {
  const lease = await tier.acquire(checkpoint(1));
  store.finish(1n);
  const { state, onEvict } = keeper();
  lease.keep(onEvict);
  lease.release();
  cacheBytes = 0;
  tier.trim();
  expect(state.asked).toBe(0);
  expect(store.released).toEqual([1n]);
});

test("loads take turns on the disk, and who waits can leave", async () => {
  const positions: number[] = [];
  const waiting = new AbortController();
  await tier.acquire(checkpoint(1));
  await tier.acquire(checkpoint(2));
  const options = { signal: waiting.signal, onPosition: (position: number) => positions.push(position) };
  const third = tier.acquire(checkpoint(3), options);
  const fourth = tier.acquire(checkpoint(4));
  await settle();
  expect(store.loads).toHaveLength(2);
  expect(positions).toEqual([1]);
  expect(link.report().queued_bytes).toBe(4 * copyBytes);
  waiting.abort();
  await expect(third).rejects.toMatchObject({ code: "cancelled" });
  store.finish(1n);
  await clock.advance(25);
  expect((await fourth).was_begun).toBe(true);
  expect(store.loads.map((load) => load.weights_path)).toContain(checkpoint(4).weights_path);
});

test("of many who wait for one read, one may leave; the others share it, and it is freed with the last", async () => {
  const leaving = new AbortController();
  const first = await tier.acquire(checkpoint(1));
  await tier.acquire(checkpoint(2));
  const waits = [leaving.signal, undefined, undefined].map((signal) =>
    tier.acquire(checkpoint(3), { signal }),
  );
  await settle();
  leaving.abort();
  await expect(waits[0]).rejects.toMatchObject({ code: "cancelled" });
  first.release();
  const leases = await Promise.all(waits.slice(1));
  expect(leases.map((lease) => lease?.was_begun)).toEqual([false, false]);
  leases[0]?.release();
  expect(store.released).toEqual([1n]);
  leases[1]?.release();
  expect(store.released).toEqual([1n, 3n]);
});

test("a turn on the disk comes back whatever becomes of the load", async () => {
  const lease = await tier.acquire(checkpoint(1));
  store.set(1n, { state: "failed", failure: { status_name: "SLLM_E_IO", message: "disk" } });
  expect(lease.status().state).toBe("failed");
  (await tier.acquire(checkpoint(2))).release();
  store.load = () => {
    throw new Error("no room");
  };
  await expect(tier.acquire(checkpoint(3))).rejects.toThrow("no room");
  expect(link.report().queued_bytes).toBe(0);
});

test("a read that fails from a file that changed meanwhile says so; one that succeeds does not mind", async () => {
  const failed = await tier.acquire(checkpoint(1));
  const good = await tier.acquire(checkpoint(2));
  version = "2";
  store.set(1n, { state: "failed", failure: { status_name: "SLLM_E_CORRUPT", message: "bad chunk" } });
  store.finish(2n);
  expect(failed.status().failure).toMatchObject({
    code: "file_changed",
    message: expect.stringContaining("bad chunk"),
  });
  expect(good.status()).toMatchObject({ state: "ready", failure: null });
});

test("weights that no eviction could make room for name the arena's size", async () => {
  store.arenaChunks = 0;
  await expect(tier.acquire(checkpoint(1))).rejects.toMatchObject({
    code: "arena_too_small",
    message: `The weights take 1 chunks of 16777216 bytes, 16777216 bytes in all; the arena in host memory has 0.`,
  });
});

test("memory that a released load still reads into is waited for, not refused", async () => {
  store.arenaChunks = 1;
  const leaving = await tier.acquire(checkpoint(1));
  const draining = store.status(1n);
  leaving.release();
  store.statuses.set(99n, draining);
  const waiting = tier.acquire(checkpoint(2));
  await clock.advance(50);
  expect(store.loads).toHaveLength(1);
  store.statuses.delete(99n);
  await clock.advance(50);
  expect((await waiting).was_begun).toBe(true);
});

test("a checkpoint is read ahead into memory that nobody needs, and whoever wants it finds it there", async () => {
  const { outcome, done } = tier.preload(checkpoint(1));
  expect(outcome).toBe("reading");
  expect(tier.preload(checkpoint(1)).outcome).toBe("reading");
  await settle();
  store.finish(1n);
  await clock.advance(50);
  await done;
  expect(tier.preload(checkpoint(1)).outcome).toBe("present");
  expect((await tier.acquire(checkpoint(1))).was_present).toBe(true);
  expect(store.loads).toHaveLength(1);
});

test("nothing is evicted for what is read ahead, and no load waits for it", async () => {
  await useOnce(checkpoint(1));
  await useOnce(checkpoint(2));
  expect(tier.preload(checkpoint(3)).outcome).toBe("no_room");
  cacheBytes = 8 * copyBytes;
  store.arenaChunks = 2;
  expect(tier.preload(checkpoint(3)).outcome).toBe("no_room");
  store.arenaChunks = 100;
  const loading = await tier.acquire(checkpoint(4));
  expect(tier.preload(checkpoint(3)).outcome).toBe("busy");
  expect(store.released).toEqual([]);
  loading.release();
});

test("that a copy was evicted is told at once, before its memory is used again", async () => {
  await useOnce(checkpoint(1));
  await useOnce(checkpoint(2));
  expect(evictions).toBe(0);
  cacheBytes = copyBytes;
  tier.trim();
  expect(evictions).toBe(1);
  expect(tier.placements().map((p) => p.checkpoint)).toEqual([checkpoint(2).digest]);
});
