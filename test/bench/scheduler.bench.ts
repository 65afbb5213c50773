/**
 * How long scheduling decisions take from 10 to 10,000 hosts, and what the gateway adds to a warm request's first token.
 * README.md beside this file says how to read it.
 *
 *   npm run bench -- scheduler [--json] [--quick]
 */
import { parseArgs } from "node:util";
import { machine } from "./machine.ts";
import { measureLines } from "./scheduler/cold-lines.ts";
import { type DecisionTimes, measureDecisions } from "./scheduler/decisions.ts";
import { measureOverhead } from "./scheduler/overhead.ts";

const { values } = parseArgs({
  options: { json: { type: "boolean", default: false }, quick: { type: "boolean", default: false } },
});
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));
const ms = (value: number) => Number(value.toFixed(3));

const facts = machine();
say(JSON.stringify(facts));
const sizes = values.quick ? [10, 100, 1_000] : [10, 100, 1_000, 10_000];
const count = values.quick ? 2_000 : 10_000;
const times: DecisionTimes[] = [];
for (const hosts of sizes) {
  const measured = measureDecisions(hosts, count, false);
  const { p50_ms, p99_ms, max_ms, instances, placements, actions } = measured;
  say(`${hosts} hosts, ${instances} instances, ${placements} placements: ${JSON.stringify(actions)}`);
  say(`  p50 ${ms(p50_ms)} ms, p99 ${ms(p99_ms)} ms, max ${ms(max_ms)} ms`);
  times.push(measured);
}
const lines = measureLines(5);
say(`a cache line: ${ms(lines.warm_ns)} ns at once, ${ms(lines.cold_ns)} ns when 5 ms have passed`);
const turns = values.quick ? { turns: 2, turn_ms: 2_000 } : { turns: 4, turn_ms: 5_000 };
const rows = ["gateway_ms", "direct_ms", "bare_hop_ms", "overhead_ms", "bare_overhead_ms"] as const;
const overhead = async (database: "embedded" | "postgres") => {
  const found = await measureOverhead({ database, per_second: 200, ...turns });
  say(`database: ${database}`);
  for (const name of rows) say(`  ${name}: p50 ${ms(found[name].p50)}, p99 ${ms(found[name].p99)}`);
  return found;
};
const [server, embedded] = [await overhead("postgres"), await overhead("embedded")];
if (values.json) {
  const decision = times.map(({ hosts, p50_ms, p99_ms }) => ({
    hosts,
    p50_ms: ms(p50_ms),
    p99_ms: ms(p99_ms),
  }));
  const rounded = ({ p50, p99 }: { p50: number; p99: number }) => ({ p50: ms(p50), p99: ms(p99) });
  const result = {
    ...{ benchmark: "scheduler", machine: facts, decision, cache_line: lines },
    overhead_ms: rounded(server.overhead_ms),
    bare_overhead_ms: rounded(server.bare_overhead_ms),
    embedded_overhead_ms: rounded(embedded.overhead_ms),
  };
  console.log(JSON.stringify(result));
}
