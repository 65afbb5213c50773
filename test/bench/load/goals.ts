/** What loading has to reach, beside what was measured. */
import type { CaseReport } from "./case-report.ts";
import { ownBytes } from "./memory.ts";

export interface Goal {
  readonly name: string;
  /** In words, with its unit. */
  readonly wanted: string;
  /** Null when nothing of this run tells. */
  readonly figure: number | null;
  readonly met: boolean | null;
}

type Bound = { readonly at_least: number } | { readonly at_most: number };

function goal(
  name: string,
  bound: Bound,
  unit: string,
  figures: readonly (number | null | undefined)[],
): Goal {
  const known = figures.filter((figure) => typeof figure === "number");
  const isLeast = "at_least" in bound;
  const limit = isLeast ? bound.at_least : bound.at_most;
  const wanted = `${isLeast ? "at least" : "at most"} ${limit}${unit}`;
  if (known.length === 0) return { name, wanted, figure: null, met: null };
  // Of several figures the worst one counts.
  const figure = isLeast ? Math.min(...known) : Math.max(...known);
  return { name, wanted, figure, met: isLeast ? figure >= limit : figure <= limit };
}

/** The case that the goals in milliseconds and fractions are stated for. */
const large = "random-4gb";

/** All goals; those that the reports do not tell are named without a figure. */
export function goalsOf(reports: readonly CaseReport[]): Goal[] {
  const rows = (tier: "disk" | "host", from: string, name?: string) =>
    reports.filter((r) => r.tier === tier && r.from === from && (name === undefined || r.name === name));
  const fromDisk = rows("disk", "standby");
  const largeDisk = rows("disk", "standby", large);
  const ready = (from: string) => rows("host", from, large).map(({ ours_ms }) => ours_ms.p50);
  const timesAsFast = (peer: string) => largeDisk.map(({ times_as_fast }) => times_as_fast[peer]);
  const vocabulary = rows("host", "standby", large).map(({ ours_ms, vocabulary_ms }) =>
    vocabulary_ms === null ? null : ours_ms.p50 / vocabulary_ms,
  );
  const memory = reports.map((r) => (r.private_growth_bytes - r.kv_bytes) / 2 ** 20);
  return [
    goal(
      "4 GB from disk: fraction of the ceiling",
      { at_least: 0.95 },
      "",
      largeDisk.map((r) => r.fraction_of_ceiling),
    ),
    goal("4 GB from disk: times as fast as mmap", { at_least: 1.5 }, "", timesAsFast("mmap")),
    goal("4 GB from disk: times as fast as dio", { at_least: 4 }, "", timesAsFast("dio")),
    goal("4 GB from disk: times as fast as safetensors", { at_least: 4 }, "", timesAsFast("safetensors")),
    goal(
      "every case from disk: times as fast as the fastest peer",
      { at_least: 1 },
      "",
      fromDisk.flatMap(({ times_as_fast }) => Object.values(times_as_fast)),
    ),
    goal(
      "every case from host memory: weight bytes copied",
      { at_most: 0 },
      "",
      reports.filter(({ tier }) => tier === "host").map(({ bytes_copied }) => bytes_copied),
    ),
    goal("4 GB parked, pages kept: to ready", { at_most: 10 }, " ms", ready("parked")),
    goal("4 GB from a skeleton: to ready", { at_most: 50 }, " ms", ready("skeleton")),
    goal("4 GB from standby: to ready over the vocabulary's build", { at_most: 1 }, "", vocabulary),
    goal(
      "every start: first request over the steady state",
      { at_most: 1.1 },
      "",
      reports.map(({ first_to_steady }) => first_to_steady.ours),
    ),
    goal("every start: MiB beyond arena and KV cache", { at_most: ownBytes / 2 ** 20 }, " MiB", memory),
  ];
}
