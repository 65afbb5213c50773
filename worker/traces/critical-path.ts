/** Which stages a load's time was spent on, one after the other. Pure. */
import type { LoadTrace, TracedStage } from "../../schema/cluster/loads.ts";

type Path = LoadTrace["critical_path"];

/** Time that belongs to no stage and is shorter than this is not worth a line. */
const leastGapMs = 0.05;

/**
 * From the end backwards: what ended last held the load up, and before it whichever of its conditions ended last. A
 * stage that began before its last condition ended counts from that end on. Time of no stage is `other`.
 */
export function criticalPath(stages: readonly TracedStage[], total_ms: number): Path {
  const path: { stage: Path[number]["stage"]; ms: number }[] = [];
  const other = (ms: number) => {
    if (ms >= leastGapMs) path.unshift({ stage: "other", ms });
  };
  const needed = new Set(stages.flatMap((s) => s.after));
  let current = lastToEnd(stages.filter((s) => !needed.has(s.stage)));
  let end_ms = total_ms;
  const seen = new Set<TracedStage>();
  while (current !== undefined && !seen.has(current)) {
    const { after, start_ms } = current;
    seen.add(current);
    other(end_ms - current.end_ms);
    const before = lastToEnd(stages.filter((s) => after.includes(s.stage)));
    const to_ms = Math.min(current.end_ms, end_ms);
    const from_ms = Math.min(to_ms, Math.max(start_ms, before?.end_ms ?? 0));
    path.unshift({ stage: current.stage, ms: to_ms - from_ms });
    end_ms = from_ms;
    current = before;
  }
  other(end_ms);
  return path;
}

function lastToEnd(stages: readonly TracedStage[]): TracedStage | undefined {
  return stages.toSorted((a, b) => b.end_ms - a.end_ms)[0];
}
