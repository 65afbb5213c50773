/**
 * What a client sees of a stream that moves between two loaded workers, and of one whose engine is killed; how long the
 * streams beside it wait, and what a move costs. README.md beside this file says how to read it.
 *
 *   npm run bench -- migration [--json] [--moves <n>] [--failovers <n>] [--size-mb <n>]
 */
import { parseArgs } from "node:util";
import { robustLine } from "../../gateway/placement/estimates/robust.ts";
import { machine } from "./machine.ts";
import { measureMoves } from "./migration/measure.ts";
import { type GapPlace, gapPlaces, type Measured } from "./migration/measured.ts";
import { quantile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    moves: { type: "string", default: "24" },
    failovers: { type: "string", default: "6" },
    "size-mb": { type: "string", default: "300" },
  },
});
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));

const facts = machine();
say(JSON.stringify(facts));
const measured = await measureMoves(
  {
    size_bytes: Number(values["size-mb"]) * 1e6,
    moves: Number(values.moves),
    failovers: Number(values.failovers),
    // Answers that have become short and long ones by the time they move.
    contexts: [32, 128, 384],
    beside: 2,
  },
  say,
);

const tenths = (value: number) => Math.round(value * 10) / 10;
const ofAll = (all: readonly number[]) =>
  all.length === 0
    ? null
    : { p50: tenths(quantile(all, 0.5)), p99: tenths(quantile(all, 0.99)), n: all.length };
const countsOf = (places: readonly GapPlace[]) =>
  Object.fromEntries(gapPlaces.map((place) => [place, places.filter((one) => one === place).length]));
const median = (all: readonly number[]) => (all.length === 0 ? null : tenths(quantile(all, 0.5)));

/** Longest gaps of streams that do not move, over times as long as a move is watched. */
function longestOver(watched_ms: number, undisturbed: Measured["undisturbed"]): number[] {
  return undisturbed.flatMap((gaps) => {
    const longest: number[] = [];
    let [sum, most] = [0, 0];
    for (const gap of gaps) {
      [sum, most] = [sum + gap, Math.max(most, gap)];
      if (sum < watched_ms) continue;
      longest.push(most);
      [sum, most] = [0, 0];
    }
    return longest;
  });
}

/** Milliseconds per token and per move, and how far off this line is, in parts of what was measured. */
function lineOf(moves: Measured["moves"], time: string, tokens: string | null) {
  const points = moves.flatMap(({ row }): [number, number][] => {
    const count = tokens === null ? row.tokens : (row.timings_ms?.[tokens] ?? 0);
    const ms = row.timings_ms?.[time] ?? 0;
    return ms > 0 && count > 0 ? [[count, ms]] : [];
  });
  const line = robustLine(points);
  if (line === null) return null;
  const errors = points.map(([count, ms]) => Math.abs(line.slope * count + line.base - ms) / ms);
  const hundredths = (value: number) => Math.round(value * 100) / 100;
  return {
    ms_per_token: hundredths(line.slope),
    base_ms: tenths(line.base),
    error: {
      p50: hundredths(quantile(errors, 0.5)),
      p90: hundredths(quantile(errors, 0.9)),
      n: errors.length,
    },
  };
}

/** Tokens from which on sending is faster than computing, by both lines; null where they do not cross. */
function crossOver(computed: ReturnType<typeof lineOf>, sent: ReturnType<typeof lineOf>): number | null {
  if (computed === null || sent === null || computed.ms_per_token <= sent.ms_per_token) return null;
  return Math.max(0, tenths((sent.base_ms - computed.base_ms) / (computed.ms_per_token - sent.ms_per_token)));
}

/** The pause, and what of it was the detection, the prefill at the other engine, and neither. */
function failoverOf(failovers: Measured["failovers"]) {
  const known = (all: readonly (number | null)[]) => ofAll(all.filter((ms) => ms !== null));
  const rest = failovers.map(({ pause_ms, detection_ms, prefill_ms }) =>
    detection_ms === null || prefill_ms === null ? null : pause_ms - detection_ms - prefill_ms,
  );
  return {
    pause_ms: ofAll(failovers.map(({ pause_ms }) => pause_ms)),
    detection_ms: known(failovers.map(({ detection_ms }) => detection_ms)),
    prefill_ms: known(failovers.map(({ prefill_ms }) => prefill_ms)),
    rest_ms: known(rest),
  };
}

function summary({ undisturbed, moves, beside_ms, failovers, lost, doubled, line }: Measured) {
  const undisturbed_ms = undisturbed.flat();
  const finished = moves.filter(({ row }) => row.state === "finished");
  const usual = quantile(undisturbed_ms, 0.5);
  const recomputed = finished.filter(({ row }) => row.method === "recompute");
  const sent = finished.filter(({ row }) => row.method === "kv_transfer");
  const byContext = [...new Set(finished.map(({ context_tokens }) => context_tokens))].map(
    (context_tokens) => {
      const some = finished.filter((move) => move.context_tokens === context_tokens);
      const took = (moves: typeof some, method: string) =>
        median(moves.filter(({ row }) => row.method === method).map(({ row }) => row.timings_ms?.copy ?? 0));
      return {
        context_tokens,
        n: some.length,
        pause_ms: ofAll(some.map(({ pause_ms }) => pause_ms)),
        longest_gap_ms: ofAll(some.map(({ longest_gap_ms }) => longest_gap_ms)),
        // What the same time holds for a stream that does not move.
        undisturbed_longest_ms: ofAll(longestOver(median(some.map((m) => m.watched_ms)) ?? 0, undisturbed)),
        copy_ms: { recompute: took(some, "recompute"), kv_transfer: took(some, "kv_transfer") },
        bytes: median(some.filter(({ row }) => row.bytes > 0).map(({ row }) => row.bytes)),
        rounds: median(some.map(({ row }) => row.rounds)),
      };
    },
  );
  const computedLine = lineOf(recomputed, "first_round", "first_round_tokens");
  const sentLine = lineOf(sent, "kv", null);
  const pauses = finished.map(({ pause_ms }) => pause_ms);
  return {
    machine: facts,
    undisturbed_gap_ms: ofAll(undisturbed_ms),
    migration: {
      pause_ms: ofAll(pauses),
      pause_gaps:
        pauses.length === 0
          ? null
          : { p50: tenths(quantile(pauses, 0.5) / usual), p99: tenths(quantile(pauses, 0.99) / usual) },
      longest_gap_ms: ofAll(finished.map(({ longest_gap_ms }) => longest_gap_ms)),
      longest_at: countsOf(finished.map(({ longest_at }) => longest_at)),
      gap_tokens: ofAll(finished.map(({ row }) => row.timings_ms?.gap_tokens ?? 0)),
      rounds: median(finished.map(({ row }) => row.rounds)),
      tokens_computed: median(finished.map(({ row }) => row.tokens)),
      bytes_moved: sent.reduce((sum, { row }) => sum + row.bytes, 0),
      recompute: computedLine,
      kv_transfer: sentLine,
      cross_over_tokens: crossOver(computedLine, sentLine),
      handed_over_ms: ofAll(finished.map(({ row }) => row.timings_ms?.handed_over ?? 0)),
      by_context: byContext,
      asked: moves.length,
      finished: finished.length,
    },
    gap_beside_moves_ms: ofAll(beside_ms),
    failover: failoverOf(failovers),
    learned: line,
    tokens_lost: lost,
    tokens_doubled: doubled,
  };
}

const result = summary(measured);
if (!values.json) console.log(JSON.stringify(result, null, 2));
else console.log(JSON.stringify(result));
