import { beforeEach, expect, test } from "bun:test";
import {
  type NativeLoadParams,
  type NativeLoadStatus,
  SllmNativeError,
} from "../../native/bun-ffi-helpers/native.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { begunLoad } from "../../test/support/native-load.ts";
import { tinyContent } from "../../test/support/tiny-checkpoint.ts";
import { LinkQueue } from "../links/link-queue.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";
import { HostTier } from "./host-tier.ts";

const { manifest } = tinyContent();
/** Takes four chunks of the arena. */
const large: StoredCheckpoint = {
  digest: manifest.digest,
  directory: "/data/large",
  manifest: { ...manifest, weights: { ...manifest.weights, bytes: 4 * limits.chunk_bytes } },
  header_path: "h",
  weights_path: "/data/large/weights.bin",
};

let loads: NativeLoadParams[];
let released: bigint[];
let status: NativeLoadStatus;
let usedChunks: number;
let version: string;
/** What the store says to copies that shall stay. */
let refusal: SllmNativeError | null;
let clock: ManualClock;
let link: LinkQueue;
let tier: HostTier;
beforeEach(() => {
  loads = [];
  released = [];
  usedChunks = 0;
  status = { ...begunLoad, fd: 9, bytes_total: large.manifest.weights.bytes };
  version = "1";
  refusal = null;
  clock = new ManualClock();
  link = new LinkQueue({ link: "disk", parallel: 1, clock });
  tier = new HostTier({
    store: {
      load: (params) => {
        const number = BigInt(loads.push(params));
        if (refusal === null || params.stream_chunks !== undefined) return number;
        throw refusal;
      },
      status: () => status,
      release: (load) => void released.push(load),
      arena: () => ({
        arena_bytes: 3 * limits.chunk_bytes,
        used_bytes: usedChunks * limits.chunk_bytes,
        faulted_bytes: 0,
        prefault_bytes: 0,
        prefault_ms: 0,
        prefaulting: false,
        huge_bytes: 0,
      }),
    },
    clock,
    link,
    cacheBytes: () => 0,
    fileVersion: () => version,
    process_id: 77,
  });
});

test("weights larger than the arena stream through what is free of it when the engine allows that", async () => {
  const lease = await tier.acquire(large, { mayStream: true });
  expect(loads).toMatchObject([{ stream_chunks: 3, weights_path: large.weights_path }]);
  expect(lease).toMatchObject({ weights_path: "/proc/77/fd/9", was_present: false });
  expect(tier.placements()).toEqual([]);
  lease.release();
  await expect(tier.acquire(large)).rejects.toMatchObject({ code: "arena_too_small" });
});

test("a stream is nobody else's: the next one reads again, in its turn on the link", async () => {
  const first = await tier.acquire(large, { mayStream: true });
  let second: unknown = null;
  void tier.acquire(large, { mayStream: true }).then((lease) => {
    second = lease;
  });
  await settle();
  expect([loads.length, second]).toEqual([1, null]);
  status = { ...status, state: "ready" };
  expect(first.status().state).toBe("ready");
  first.release();
  await settle();
  expect([loads.length, released]).toEqual([2, [1n]]);
  expect(second).not.toBeNull();
});

test("a stream that is given up frees its chunks and its turn at once", async () => {
  const lease = await tier.acquire(large, { mayStream: true });
  lease.release();
  expect(released).toEqual([1n]);
  expect(() => lease.release()).toThrow("twice");
  await tier.acquire(large, { mayStream: true });
  expect(loads).toHaveLength(2);
});

test("weights that fit the arena but find it in use stream through the rest", async () => {
  const fits = {
    ...large,
    manifest: { ...manifest, weights: { ...manifest.weights, bytes: 2 * limits.chunk_bytes } },
  };
  usedChunks = 1;
  const whole = await tier.acquire(fits, { mayStream: true });
  expect(loads[0]?.stream_chunks).toBeUndefined();
  // The first copy is complete and in use; another has no room beside it.
  status = { ...status, state: "ready" };
  expect(whole.status().state).toBe("ready");
  usedChunks = 2;
  const other = `${fits.digest.slice(0, -1)}${fits.digest.endsWith("0") ? "1" : "0"}`;
  await tier.acquire({ ...fits, digest: other }, { mayStream: true });
  expect(loads[1]?.stream_chunks).toBe(2);
});

test("a stream that fails at once gives its turn back, and one from a file that changed says so", async () => {
  status = { ...status, state: "failed", failure: { status_name: "SLLM_E_CORRUPT", message: "short" } };
  const failed = await tier.acquire(large, { mayStream: true });
  expect(failed.status()).toMatchObject({ state: "failed", failure: { message: "short" } });
  failed.release();
  expect(link.report().queued_bytes).toBe(0);
  status = { ...status, state: "loading", failure: null };
  const lease = await tier.acquire(large, { mayStream: true });
  version = "2";
  status = { ...status, state: "failed", failure: { status_name: "SLLM_E_CORRUPT", message: "bad" } };
  expect(lease.status().failure).toMatchObject({ code: "file_changed" });
});

test("weights whose room is taken while they wait for the disk stream instead of failing", async () => {
  const first = await tier.acquire(large, { mayStream: true });
  const fits = {
    ...large,
    manifest: { ...manifest, weights: { ...manifest.weights, bytes: 2 * limits.chunk_bytes } },
  };
  const waiting = tier.acquire(fits, { mayStream: true });
  await settle();
  refusal = new SllmNativeError("sllm_store_load", -6, "all of the arena is in use");
  first.release();
  await settle();
  await waiting;
  expect(loads.map((params) => params.stream_chunks)).toEqual([3, undefined, 3]);
});

test("chunks that streams hold are in use: nobody waits for them as for those of a load that ends", async () => {
  await tier.acquire(large, { mayStream: true });
  usedChunks = 3;
  const second = tier.acquire(large, { mayStream: true });
  status = { ...status, state: "ready" };
  await clock.advance(20);
  await second;
  expect(loads).toHaveLength(2);
});
