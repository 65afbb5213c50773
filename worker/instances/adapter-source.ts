/** Where instances get adapters from: the checkpoint on disk, its weights by the host tier, as models' weights come. */
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import type { DiskTier } from "../checkpoints/disk-tier.ts";
import type { HostLease } from "../checkpoints/host-lease.ts";
import type { HostTier } from "../checkpoints/host-tier.ts";
import { asAdapter } from "../checkpoints/import/verify.ts";
import type { FetchedAdapter } from "./adapters.ts";
import { readError } from "./load-errors.ts";

export interface AdapterSource {
  readonly disk: Pick<DiskTier, "find" | "verifyHeader">;
  readonly host: Pick<HostTier, "acquire">;
  /** Marks what is in use on disk; resolves to the release. */
  readonly useCheckpoint: (digest: CheckpointDigest) => Promise<() => void>;
}

/**
 * Brings an adapter into host memory, all of it: engines read it as a file. Errors: `checkpoint_unavailable`,
 * `checkpoint_invalid`, `checkpoint_unsupported` for what is no adapter, `arena_too_small`, `io_error`, `cancelled`.
 */
export async function fetchAdapter(
  { disk, host, useCheckpoint }: AdapterSource,
  digest: CheckpointDigest,
  signal: AbortSignal,
): Promise<FetchedAdapter> {
  const letGo = await useCheckpoint(digest);
  let lease: HostLease | null = null;
  try {
    const checkpoint = asAdapter(await disk.find(digest));
    const { header_path, directory, manifest } = checkpoint;
    const taken = await host.acquire(checkpoint, { signal });
    lease = taken;
    await Promise.all([disk.verifyHeader(checkpoint), untilWhole(taken, directory, signal)]);
    const release = () => {
      taken.release();
      letGo();
    };
    const { weights_path } = taken;
    return { header_path, weights_path, weights_bytes: manifest.weights.bytes, release };
  } catch (error) {
    lease?.release();
    letGo();
    throw error;
  }
}

async function untilWhole(lease: HostLease, directory: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { state, failure } = lease.status();
    if (failure) {
      const { code, message } = readError(failure, directory);
      throw new SllmError(code, message);
    }
    if (state === "ready") return;
    if (signal.aborted) throw new SllmError("cancelled", "Nobody wants the adapter any more.");
    await lease.changed();
  }
}
