/**
 * The worker's part in the disk budget: it marks what it uses and what is deployed, so that no process that makes room
 * takes those, and evicts by itself when the checkpoints are above their budget. What a crash left is swept at the start.
 */
import { mkdir } from "node:fs/promises";
import type { CheckpointDigest, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log } from "../ports.ts";
import { sweepIncoming } from "./import/incoming.ts";
import { markDeployed, markUsed } from "./import/marks.ts";
import { createOwned, type OwnedFile, removeOwned, sweepOwned } from "./import/owned-files.ts";
import { trimStore } from "./import/reserve.ts";
import { systemReason } from "./import/system-failure.ts";

export interface DiskBudgetOptions {
  readonly directory: string;
  readonly worker_id: WorkerId;
  /** Bytes that checkpoints may take; undefined: conversions look at what the disk has. */
  readonly disk_bytes: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when the set of checkpoints that are about to go has changed. */
  readonly onChange: () => void;
}

interface Use {
  count: number;
  /** null where the store takes no marks. */
  readonly file: Promise<OwnedFile | null>;
}

export class DiskBudget {
  readonly #options: DiskBudgetOptions;
  readonly #uses = new Map<CheckpointDigest, Use>();
  readonly #evicting = new Set<CheckpointDigest>();
  #deployed = "";
  #reportedMs = 0;
  #markedMs = Number.NEGATIVE_INFINITY;
  #trimming = false;

  constructor(options: DiskBudgetOptions) {
    this.#options = options;
  }

  /** Makes the folder if it is missing and sweeps what killed processes left. */
  async start(): Promise<void> {
    const { directory } = this.#options;
    await this.#try("store_not_swept", async () => {
      await mkdir(directory, { recursive: true });
      await sweepIncoming(directory);
      await sweepOwned(directory);
    });
  }

  /** Keeps a checkpoint from being evicted until the release, which is called exactly once. */
  async use(digest: CheckpointDigest): Promise<() => void> {
    const use = this.#uses.get(digest) ?? { count: 0, file: this.#mark(digest) };
    this.#uses.set(digest, use);
    use.count++;
    await use.file;
    return () => void this.#release(digest, use);
  }

  /** About to go: nothing new should be started from it. */
  isEvicting(digest: CheckpointDigest): boolean {
    return this.#evicting.has(digest);
  }

  /** A report of what lies here is being made: what the gateway answers is about that moment. */
  reporting(): void {
    this.#reportedMs = this.#options.clock.wallMs();
  }

  /** What the gateway says is deployed of the checkpoints that were reported. */
  async heard(deployed: readonly CheckpointDigest[], reported: readonly CheckpointDigest[]): Promise<void> {
    const { clock, directory, worker_id } = this.#options;
    const text = [[...deployed].sort().join(), [...reported].sort().join()].join(" ");
    const isOld = clock.monotonicMs() - this.#markedMs > limits.deployed_mark_ms;
    if (text === this.#deployed && !isOld) return;
    this.#deployed = text;
    this.#markedMs = clock.monotonicMs();
    const mark = { digests: [...deployed], known_at_ms: this.#reportedMs };
    await this.#try("deployed_not_marked", () => markDeployed(directory, worker_id, mark));
    await this.trim();
  }

  /** Evicts until the checkpoints fit the budget, as far as that is allowed. One run at a time. */
  async trim(): Promise<void> {
    const { directory, disk_bytes, log } = this.#options;
    if (disk_bytes === undefined || this.#trimming) return;
    this.#trimming = true;
    await this.#try("store_not_trimmed", async () => {
      const evicted = await trimStore(directory, disk_bytes, (digest) => this.#announce(digest));
      if (evicted.length > 0) log.info("checkpoints_evicted", { count: evicted.length, disk_bytes });
    });
    this.#evicting.clear();
    this.#trimming = false;
  }

  /** Gateways hear of an eviction a heartbeat before it happens. */
  async #announce(digest: CheckpointDigest): Promise<void> {
    this.#evicting.add(digest);
    this.#options.onChange();
    await this.#options.clock.sleep(limits.heartbeat_ms);
  }

  async #mark(digest: CheckpointDigest): Promise<OwnedFile | null> {
    const { directory } = this.#options;
    let file: OwnedFile | null = null;
    await this.#try("use_not_marked", async () => {
      file = await createOwned(directory, "using", digest);
      await markUsed(directory, digest);
    });
    return file;
  }

  async #release(digest: CheckpointDigest, use: Use): Promise<void> {
    use.count--;
    if (use.count > 0) return;
    if (this.#uses.get(digest) === use) this.#uses.delete(digest);
    const { directory } = this.#options;
    await this.#try("use_not_marked", async () => {
      const file = await use.file;
      await markUsed(directory, digest);
      if (file !== null) await removeOwned(directory, file);
    });
  }

  /** A store that takes no marks (read-only, full, away) serves all the same. */
  async #try(event: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.log.warn(event, { reason: systemReason(error) });
    }
  }
}
