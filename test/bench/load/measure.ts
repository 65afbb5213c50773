/**
 * Runs the pairs: within seconds the disk's ceiling and one subject (our start or a peer), on files that were evicted
 * just before; the subjects take turns, so that a machine that slows down slows all of them.
 */
import type { Case } from "./cases.ts";
import { makeOtherPeers } from "./other-peers.ts";
import {
  type AblationOutcome,
  ablate,
  ablationSteps,
  type Ceiling,
  type CeilingSetting,
  ceiling,
  evict,
  type LoadMode,
  loadModes,
  type PlainOutcome,
  plain,
  start,
} from "./programs.ts";

/** A start as all subjects have it. `ready_ms`: the subject says that it takes requests. */
export interface Start {
  readonly ready_ms: number;
  /** From the start of the load; null where a peer only loads. */
  readonly first_token_ms: number | null;
  readonly cpu_ms: number;
}

/** One measurement, as it goes into the raw results. */
export interface Run {
  readonly case: string;
  readonly repetition: number;
  readonly subject: string;
  readonly tier: "disk" | "host";
  /** Bytes that the subject had to read. */
  readonly bytes: number;
  readonly start: Start;
  /** The ceiling measured just before, on the same file; null where no disk is involved. */
  readonly ceiling: Ceiling | null;
  /** Everything the subject said. */
  readonly details: object;
}

export interface MeasureOptions {
  readonly pairs: number;
  readonly ceiling: CeilingSetting;
  /** Time (performance.now()) after which no further repetition begins. */
  readonly until_ms: number;
  readonly record: (run: Run) => void;
  readonly say: (text: string) => void;
}

/** Measures a case. Fewer repetitions than asked for come back when the time is over. */
export async function measureCase(it: Case, options: MeasureOptions): Promise<Run[]> {
  const runs: Run[] = [];
  const put = (run: Run) => {
    runs.push(run);
    options.record(run);
  };
  const others = makeOtherPeers(it, options.say);
  for (let repetition = 0; repetition < options.pairs; repetition++) {
    if (repetition > 0 && performance.now() > options.until_ms) {
      options.say(`${it.name}: time is over after ${repetition} of ${options.pairs} repetitions`);
      break;
    }
    const facts = { case: it.name, repetition };
    for (const run of await ours(it, options.ceiling)) put({ ...facts, ...run });
    for (const mode of loadModes) put({ ...facts, ...fromDisk(it, mode, options.ceiling) });
    for (const mode of ["mmap", "none"] as const) put({ ...facts, ...fromCache(it, mode) });
    for (const peer of others) {
      const before = coldCeiling(peer.file, peer.bytes, options.ceiling);
      const { ready_ms, cpu_ms } = peer.load();
      const measured = { ready_ms, cpu_ms, first_token_ms: null };
      put({
        ...{ ...facts, subject: peer.name, tier: "disk", bytes: peer.bytes },
        ...{ start: measured, ceiling: before, details: {} },
      });
    }
  }
  return runs;
}

type Measured = Omit<Run, "case" | "repetition">;

/** Reads the file for the ceiling and leaves it evicted. */
function coldCeiling(file: string, bytes: number, setting: CeilingSetting): Ceiling {
  evict(file, bytes);
  const measured = ceiling(file, setting);
  evict(file, bytes);
  return measured;
}

/** From disk in one process; then, while that one holds the host copy, from host memory in another. */
async function ours(it: Case, setting: CeilingSetting): Promise<Measured[]> {
  const { bytes } = it.manifest.weights;
  const before = coldCeiling(it.weights, bytes, setting);
  const disk = await start(it.checkpoint, null);
  try {
    const host = await start(it.checkpoint, disk.outcome.host_copy);
    await host.end();
    const of = { subject: "ours", bytes };
    return [
      { ...of, tier: "disk", ceiling: before, start: disk.outcome, details: disk.outcome },
      { ...of, tier: "host", ceiling: null, start: host.outcome, details: host.outcome },
    ];
  } finally {
    await disk.end();
  }
}

function fromDisk(it: Case, mode: LoadMode, setting: CeilingSetting): Measured {
  const { bytes } = it.manifest.weights;
  const before = coldCeiling(it.gguf, bytes, setting);
  const details = plain(it.gguf, mode);
  return { subject: mode, tier: "disk", bytes, ceiling: before, start: startOf(details), details };
}

/** What a peer has instead of a host tier: the page cache, filled by the load before. */
function fromCache(it: Case, mode: LoadMode): Measured {
  // The first one reads what the last cold load left out of the cache.
  if (mode === "mmap") plain(it.gguf, mode);
  const details = plain(it.gguf, mode);
  const { bytes } = it.manifest.weights;
  return { subject: mode, tier: "host", bytes, ceiling: null, start: startOf(details), details };
}

function startOf({ load_ms, first_token_ms, cpu_ms }: PlainOutcome): Start {
  return { ready_ms: load_ms, first_token_ms, cpu_ms };
}

/** The steps of the ablation, each `rounds` times in turns, cold. */
export function measureAblation(
  it: Case,
  rounds: number,
  untilMs: number,
  record: (outcome: AblationOutcome) => void,
): AblationOutcome[] {
  const outcomes: AblationOutcome[] = [];
  for (let round = 0; round < rounds && (round === 0 || performance.now() < untilMs); round++) {
    for (const step of ablationSteps) {
      evict(it.weights, it.manifest.weights.bytes);
      const outcome = ablate(step, it);
      record(outcome);
      outcomes.push(outcome);
    }
  }
  return outcomes;
}
