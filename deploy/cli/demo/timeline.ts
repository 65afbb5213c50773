/** The timeline of a start as an aligned table with bars, for people. Pure. */
import type { Timeline } from "../../../schema/api/admin.ts";

const stages = [
  ["queue", "queue"],
  ["process_start", "process start"],
  ["disk_read", "disk read"],
  ["model_build", "model build"],
  ["resume", "resume"],
  ["prefill", "prefill"],
  ["first_token", "first token"],
  ["total", "total"],
] as const satisfies readonly (readonly [keyof Timeline, string])[];

/** Cells of the longest bar; with names and numbers it fits 80 columns. */
const barCells = 48;

/** One line a stage: name, milliseconds, and its share of the total as a bar. Stages may overlap. */
export function formatTimeline(timeline: Timeline): string {
  const width = Math.max(...stages.map(([, title]) => title.length));
  const numbers = stages.map(([stage]) => timeline[stage].toFixed(1));
  const numberWidth = Math.max(...numbers.map((text) => text.length));
  return stages
    .map(([stage, title], i) => {
      const share = timeline.total > 0 ? Math.min(1, Math.max(0, timeline[stage] / timeline.total)) : 0;
      const bar = "#".repeat(Math.round(share * barCells));
      return `  ${title.padEnd(width)}  ${(numbers[i] ?? "").padStart(numberWidth)} ms  ${bar}`.trimEnd();
    })
    .join("\n");
}
