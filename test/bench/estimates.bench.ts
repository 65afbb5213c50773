/**
 * How far off the estimates of starts are on a live cluster of workers without GPUs, once it has learned.
 * README.md beside this file says how to read it.
 *
 *   npm run bench -- estimates [--json] [--quick] [--seed <n>] [--pause-ms <n>]
 */
import { parseArgs } from "node:util";
import { type EstimatedStart, observeStarts } from "./estimates/starts.ts";
import { machine } from "./machine.ts";
import { quantile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    raw: { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
    "pause-ms": { type: "string", default: "1000" },
    workers: { type: "string", default: "1" },
  },
});
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));

/** Part of the starts from which the cluster learns; the others are judged. */
const learning = 0.4;
const megabyte = 1e6;
/** Below this a start is over before it matters where it is; what the machine varies by is a large part of it. */
const long_ms = 50;

const facts = machine();
say(JSON.stringify(facts));
const starts = await observeStarts(
  {
    workers: Number(values.workers),
    sizes_bytes: [60, 120, 240, 400].map((size) => size * megabyte),
    requests: values.quick ? 40 : 90,
    pause_ms: Number(values["pause-ms"]),
    seed: Number(values.seed),
  },
  say,
);
const judged = starts.slice(Math.floor(starts.length * learning));
if (judged.length === 0) throw new Error("nothing was started");

const errorOf = ({ estimate_ms, actual_ms }: EstimatedStart) => Math.abs(estimate_ms - actual_ms) / actual_ms;
const kindOf = ({ how, tier }: EstimatedStart) => (how === "resume" ? "parked" : `${how} from ${tier}`);
const summaryOf = (some: readonly EstimatedStart[]) => ({
  starts: some.length,
  actual_p50_ms: Math.round(
    quantile(
      some.map((s) => s.actual_ms),
      0.5,
    ),
  ),
  error_p50: Number(quantile(some.map(errorOf), 0.5).toFixed(3)),
  error_p90: Number(quantile(some.map(errorOf), 0.9).toFixed(3)),
  off_p90_ms: Math.round(
    quantile(
      some.map((s) => Math.abs(s.estimate_ms - s.actual_ms)),
      0.9,
    ),
  ),
});

/**
 * Error that an estimator makes which knows all starts of a kind and model and says their median each time: what the
 * machine itself varies by, and no estimate can foresee. A start that is the only one of its kind counts as foreseen.
 */
const foreseeable = (some: readonly EstimatedStart[]) => {
  const keyOf = (start: EstimatedStart) => `${kindOf(start)} ${start.model_id}`;
  const errors = some.map((start) => {
    const alike = some.filter((other) => keyOf(other) === keyOf(start)).map((other) => other.actual_ms);
    return Math.abs(quantile(alike, 0.5) - start.actual_ms) / start.actual_ms;
  });
  return {
    error_p50: Number(quantile(errors, 0.5).toFixed(3)),
    error_p90: Number(quantile(errors, 0.9).toFixed(3)),
  };
};

const kinds = Object.fromEntries(
  [...new Set(judged.map(kindOf))]
    .toSorted()
    .map((kind) => [kind, summaryOf(judged.filter((s) => kindOf(s) === kind))]),
);
const long = summaryOf(judged.filter(({ actual_ms }) => actual_ms >= long_ms));
const all = summaryOf(judged);
for (const [kind, summary] of Object.entries({ ...kinds, [`at least ${long_ms} ms`]: long, all })) {
  say(`${kind}: ${JSON.stringify(summary)}`);
}
const hindsight = foreseeable(judged);
say(`with hindsight: ${JSON.stringify(hindsight)}`);
if (values.raw) for (const start of starts) say(JSON.stringify(start));
if (values.json) {
  console.log(
    JSON.stringify({
      benchmark: "estimates",
      machine: facts,
      learned: starts.length - judged.length,
      kinds,
      long,
      all,
      hindsight,
    }),
  );
}
