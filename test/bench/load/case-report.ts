/** Turns the runs of one case and tier into figures: medians of pairs, spreads, memory. */
import { median, quantile, type Spread, spread } from "../statistics.ts";
import type { StartOutcome, StartState } from "./engine-process.ts";
import type { Run } from "./measure.ts";

interface Times {
  readonly p50: number;
  readonly p95: number;
}

type BySubject<T = number> = Readonly<Record<string, T>>;

/** What a case's figures are of. */
export interface Rows {
  readonly tier: "disk" | "host";
  /** What was there before our start; the peers always start as a process that has nothing. */
  readonly from: StartState;
}

/** All rows of a case, in the order of the table. */
export const rowsOfCase: readonly Rows[] = [
  { tier: "disk", from: "standby" },
  { tier: "host", from: "standby" },
  { tier: "host", from: "skeleton" },
  { tier: "host", from: "parked_unmapped" },
  { tier: "host", from: "parked" },
];

export interface CaseReport extends Rows {
  readonly name: string;
  readonly bytes: number;
  readonly tensors: number;
  readonly pairs: number;
  readonly ours_ms: Times;
  /** Median over the pairs of our bytes per second to the disk's; null from host memory, where no disk takes part. */
  readonly fraction_of_ceiling: number | null;
  readonly fraction_spread: Spread | null;
  readonly first_fraction: number | null;
  readonly ceiling_gbps: number | null;
  /** Medians; null for a peer that this machine does not have or that has no such tier. */
  readonly peers_ms: BySubject<number | null>;
  /** The peer's time over ours, above 1 where we are faster: median over the repetitions. */
  readonly times_as_fast: BySubject;
  /** From the start of the load to the first token of a short prompt. */
  readonly first_token_ms: BySubject;
  readonly first_token_times_as_fast: BySubject;
  /** The first request's time once ready over that of later ones: above 1 what "ready" left undone. */
  readonly first_to_steady: BySubject;
  /** Fractions of the ceiling that the peers reach. */
  readonly peers_fraction: BySubject;
  readonly bytes_copied: number;
  readonly cpu_s_per_gb: BySubject;
  readonly private_growth_bytes: number;
  readonly kv_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly build_ms: number;
  readonly wait_ms: number;
  readonly read_ms: number | null;
  /** What libllama takes to build nothing but the vocabulary; null when nobody asked. */
  readonly vocabulary_ms: number | null;
}

/** All peers; the report names them even where they were not measured. */
export const knownPeers = ["mmap", "none", "dio", "safetensors"] as const;

const bySubject = <T>(subjects: readonly string[], of: (subject: string) => T): Record<string, T> =>
  Object.fromEntries(subjects.map((subject) => [subject, of(subject)]));

const isNumber = (value: number | null): value is number => value !== null;

/** Our bytes per second over those of the ceiling that was read just before. */
function fractionOf({ bytes, start, ceiling }: Run): number | null {
  return ceiling === null ? null : bytes / start.ready_ms / (ceiling.bytes / ceiling.ms);
}

/** The first request's extra time once ready; null where a peer only loads. */
function firstToSteady({ start }: Run): number | null {
  const { first_token_ms, steady_ms, ready_ms } = start;
  return first_token_ms === null || steady_ms === null ? null : (first_token_ms - ready_ms) / steady_ms;
}

/** Medians of a peer's time over ours, paired by repetition. Throws when a repetition lacks one of the two. */
function timesAsFast(mine: readonly Run[], theirs: readonly Run[], time: (run: Run) => number): number {
  const ratios = theirs.map((run) => {
    const own = mine.find(({ repetition }) => repetition === run.repetition);
    if (own === undefined) throw new Error(`${run.case}: repetition ${run.repetition} has no start of ours`);
    return time(run) / time(own);
  });
  return median(ratios);
}

/** Null when the runs have no such row. `all`: the runs of one case. */
export function reportCase(all: readonly Run[], { tier, from }: Rows, tensors: number): CaseReport | null {
  const runs = all.filter((run) => run.tier === tier);
  const mine = runs.filter((run) => run.subject === "ours" && run.from === from);
  const [first] = mine;
  if (first === undefined) return null;
  const of = (subject: string) => (subject === "ours" ? mine : runs.filter((run) => run.subject === subject));
  const peers = [...new Set(runs.map(({ subject }) => subject))].filter((subject) => subject !== "ours");
  const ready = (run: Run) => run.start.ready_ms;
  const firstToken = (run: Run) => run.start.first_token_ms ?? Number.NaN;
  const withTokens = peers.filter((peer) => of(peer).every(({ start }) => start.first_token_ms !== null));
  const details = mine.map((run) => run.details as StartOutcome);
  const middle = (
    key: "private_growth_bytes" | "kv_bytes" | "anonymous_growth_bytes" | "build_ms" | "wait_ms",
  ) => median(details.map((detail) => detail[key]));
  const fractions = mine.map(fractionOf).filter(isNumber);
  const ceilings = runs.flatMap(({ ceiling }) => (ceiling === null ? [] : [ceiling.gbps]));
  const reads = details.map(({ read_ms }) => read_ms).filter(isNumber);
  const orNull = <T>(values: readonly number[], of: (values: readonly number[]) => T) =>
    values.length === 0 ? null : of(values);
  const measured = (peer: string) => orNull(of(peer).map(ready), median);
  return {
    ...{ name: first.case, bytes: first.bytes, tier, from, tensors, pairs: mine.length },
    ours_ms: { p50: quantile(mine.map(ready), 0.5), p95: quantile(mine.map(ready), 0.95) },
    fraction_of_ceiling: orNull(fractions, median),
    fraction_spread: orNull(fractions, spread),
    first_fraction: fractions[0] ?? null,
    ceiling_gbps: orNull(ceilings, median),
    peers_ms: bySubject([...new Set([...knownPeers, ...peers])], measured),
    times_as_fast: bySubject(peers, (peer) => timesAsFast(mine, of(peer), ready)),
    first_token_ms: bySubject(["ours", ...withTokens], (subject) => median(of(subject).map(firstToken))),
    first_token_times_as_fast: bySubject(withTokens, (peer) => timesAsFast(mine, of(peer), firstToken)),
    first_to_steady: bySubject(["ours", ...withTokens], (subject) =>
      median(of(subject).map(firstToSteady).filter(isNumber)),
    ),
    peers_fraction:
      tier === "host" ? {} : bySubject(peers, (peer) => median(of(peer).map(fractionOf).filter(isNumber))),
    bytes_copied: Math.max(...details.map((detail) => detail.bytes_copied)),
    cpu_s_per_gb: bySubject(["ours", ...peers], (subject) =>
      median(of(subject).map((run) => run.start.cpu_ms / 1e3 / (run.bytes / 1e9))),
    ),
    private_growth_bytes: middle("private_growth_bytes"),
    kv_bytes: middle("kv_bytes"),
    anonymous_growth_bytes: middle("anonymous_growth_bytes"),
    build_ms: middle("build_ms"),
    wait_ms: middle("wait_ms"),
    read_ms: orNull(reads, median),
    // Older raw results do not have it.
    vocabulary_ms: orNull(mine.map((run) => run.vocabulary_ms ?? null).filter(isNumber), median),
  };
}
