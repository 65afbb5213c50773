/**
 * Runs the pairs: within seconds the disk's ceiling and one subject (our start or a peer), on files that were evicted
 * just before; the subjects take turns, so that a machine that slows down slows all of them.
 */
import type { Case } from "./cases.ts";
import type { StartOutcome, StartState } from "./engine-process.ts";
import { start } from "./our-starts.ts";
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
  vocabularyMs,
} from "./programs.ts";
import { type SafetensorsPeer, safetensorsPeer } from "./safetensors-peer.ts";

/** A start as all subjects have it. `ready_ms`: the subject says that it takes requests. */
export interface Start {
  readonly ready_ms: number;
  /** From the start of the load; null where a peer only loads. */
  readonly first_token_ms: number | null;
  /** First token of a request of the same length later on; null where a peer only loads. */
  readonly steady_ms: number | null;
  readonly cpu_ms: number;
}

/** One measurement, as it goes into the raw results. */
export interface Run {
  readonly case: string;
  readonly repetition: number;
  readonly subject: string;
  readonly tier: "disk" | "host";
  /** What was there before; peers start as a process that has nothing. */
  readonly from: StartState | "process";
  /** Bytes that the subject had to read. */
  readonly bytes: number;
  readonly start: Start;
  /** The ceiling measured just before, on the same file; null where no disk is involved. */
  readonly ceiling: Ceiling | null;
  /** What libllama takes to build nothing but the vocabulary, measured just before; null for peers. */
  readonly vocabulary_ms: number | null;
  /** Everything the subject said. */
  readonly details: object;
}

export interface MeasureOptions {
  readonly pairs: number;
  /** Which peers take part, where they can. */
  readonly peers: readonly string[];
  readonly ceiling: CeilingSetting;
  /** Time (performance.now()) after which no further repetition begins. */
  readonly until_ms: number;
  readonly record: (run: Run) => void;
  readonly say: (text: string) => void;
}

/** Measures a case. Fewer repetitions than asked for come back when the time is over. */
export async function measureCase(it: Case, options: MeasureOptions): Promise<Run[]> {
  const runs: Run[] = [];
  const put = (repetition: number, run: Measured) => {
    const whole = { case: it.name, repetition, ...run };
    runs.push(whole);
    options.record(whole);
  };
  const { peers } = options;
  const safetensors = peers.includes("safetensors") ? safetensorsPeer(it, options.say) : null;
  const modes = loadModes.filter((mode) => peers.includes(mode));
  for (let repetition = 0; repetition < options.pairs; repetition++) {
    if (repetition > 0 && performance.now() > options.until_ms) {
      options.say(`${it.name}: time is over after ${repetition} of ${options.pairs} repetitions`);
      break;
    }
    for (const run of await ours(it, options.ceiling)) put(repetition, run);
    // O_DIRECT has nothing from the page cache and comes first; the others leave the file there, mmap as a whole.
    for (const mode of modes) put(repetition, fromDisk(it, mode, options.ceiling));
    for (const mode of modes.filter((mode) => mode !== "dio")) put(repetition, fromCache(it, mode));
    if (safetensors !== null) {
      for (const run of withSafetensors(safetensors, options.ceiling)) put(repetition, run);
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

/** From disk in one process; then, while that one holds the host copy, from host memory in two others. */
async function ours(it: Case, setting: CeilingSetting): Promise<Measured[]> {
  const { bytes } = it.manifest.weights;
  const vocabulary_ms = vocabularyMs(it.gguf);
  const before = coldCeiling(it.weights, bytes, setting);
  const measured = (outcome: StartOutcome): Measured => ({
    subject: "ours",
    tier: outcome.read_ms === null ? "host" : "disk",
    from: outcome.from,
    bytes,
    start: outcome,
    ceiling: outcome.read_ms === null ? null : before,
    vocabulary_ms,
    details: outcome,
  });
  const disk = await start(it.checkpoint, null);
  try {
    const runs = disk.outcomes.map(measured);
    for (const hasSkeleton of [false, true]) {
      const host = await start(it.checkpoint, disk.outcomes[0]?.host_copy ?? null, hasSkeleton);
      runs.push(...host.outcomes.map(measured));
      await host.end();
    }
    return runs;
  } finally {
    await disk.end();
  }
}

function fromDisk(it: Case, mode: LoadMode, setting: CeilingSetting): Measured {
  const before = coldCeiling(it.gguf, it.manifest.weights.bytes, setting);
  return peerRun(it, mode, before, plain(it.gguf, mode));
}

/** What a peer has instead of a host tier: the page cache, filled by the load from disk before. */
function fromCache(it: Case, mode: LoadMode): Measured {
  return peerRun(it, mode, null, plain(it.gguf, mode));
}

function peerRun(it: Case, mode: LoadMode, before: Ceiling | null, details: PlainOutcome): Measured {
  const { load_ms, first_token_ms, again_ms, cpu_ms } = details;
  return {
    subject: mode,
    tier: before === null ? "host" : "disk",
    from: "process",
    bytes: it.manifest.weights.bytes,
    start: { ready_ms: load_ms, first_token_ms, steady_ms: again_ms, cpu_ms },
    ceiling: before,
    vocabulary_ms: null,
    details,
  };
}

/** Cold from disk, then once more with the file in the page cache. */
function withSafetensors(peer: SafetensorsPeer, setting: CeilingSetting): Measured[] {
  const before = coldCeiling(peer.file, peer.bytes, setting);
  return [before, null].map((ceiling) => {
    const loaded = peer.load();
    return {
      subject: "safetensors",
      tier: ceiling === null ? "host" : "disk",
      from: "process",
      bytes: peer.bytes,
      start: { ...loaded, first_token_ms: null, steady_ms: null },
      ceiling,
      vocabulary_ms: null,
      details: loaded,
    };
  });
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
