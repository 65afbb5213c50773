/** Figures of the first-token benchmark: medians of the rounds, ratios within them, goals. */
import type { Goal } from "../load/goals.ts";
import { pairedRatio, type Summary, summary } from "../statistics.ts";
import type { Measured, Round, Times } from "./measure.ts";

const states = ["disk", "host", "parked", "warm"] as const;
type State = (typeof states)[number];
type ByState<T> = Readonly<Record<State, T>>;

/** What of the router stands beside a state of ours: it does not park. */
const counterpart = { disk: "disk", host: "host", parked: "host", warm: "warm" } as const;

export interface TtftReport {
  readonly model: string;
  readonly weights_bytes: number;
  readonly ttft_ms: ByState<Summary>;
  /** Of llama-server in router mode; null where it was not built. */
  readonly router_ttft_ms: Readonly<Record<keyof Times, Summary>> | null;
  readonly disk_ceiling_ms: Summary;
  /** Our cold start over the time that the disk alone needs; 1 would be the ceiling. */
  readonly disk_to_ceiling: number;
  /** The router's time over ours, above 1 where we are faster: median over the rounds. */
  readonly times_as_fast: ByState<number> | null;
  /** The same of what a start costs beyond the first token of a warm model, which is the same work for both. */
  readonly start_times_as_fast: Omit<ByState<number>, "warm"> | null;
  /** Growth of worker and engine from rest to after the first token of the first start. */
  readonly memory: {
    readonly beyond_arena_bytes: number;
    readonly arena_bytes: number;
    readonly kv_bytes: number;
  };
}

export interface ReportFacts {
  readonly model: string;
  readonly weights_bytes: number;
  readonly kv_bytes: number;
}

export function reportTtft({ model, weights_bytes, kv_bytes }: ReportFacts, measured: Measured): TtftReport {
  const { rounds, memory } = measured;
  const ours = rounds.map((round) => round.ours);
  const routers = rounds.map((round: Round) => round.router).filter((times) => times !== null);
  const withRouter = routers.length === rounds.length;
  const of = <T extends string>(times: readonly Readonly<Record<T, number>>[], state: T) =>
    summary(times.map((round) => round[state]));
  const ratio = (state: State) =>
    pairedRatio(
      routers.map((times) => times[counterpart[state]]),
      ours.map((times) => times[state]),
    );
  const startRatio = (state: State) =>
    pairedRatio(
      routers.map((times) => times[counterpart[state]] - times.warm),
      ours.map((times) => times[state] - times.warm),
    );
  return {
    model,
    weights_bytes,
    ttft_ms: {
      disk: of(ours, "disk"),
      host: of(ours, "host"),
      parked: of(ours, "parked"),
      warm: of(ours, "warm"),
    },
    router_ttft_ms: withRouter
      ? { disk: of(routers, "disk"), host: of(routers, "host"), warm: of(routers, "warm") }
      : null,
    disk_ceiling_ms: summary(rounds.map(({ ceiling_ms }) => ceiling_ms)),
    disk_to_ceiling: pairedRatio(
      ours.map(({ disk }) => disk),
      rounds.map(({ ceiling_ms }) => ceiling_ms),
    ),
    times_as_fast: withRouter
      ? { disk: ratio("disk"), host: ratio("host"), parked: ratio("parked"), warm: ratio("warm") }
      : null,
    start_times_as_fast: withRouter
      ? { disk: startRatio("disk"), host: startRatio("host"), parked: startRatio("parked") }
      : null,
    memory: {
      beyond_arena_bytes: memory.after.private_bytes - memory.before.private_bytes,
      arena_bytes: memory.after.arena_bytes,
      kv_bytes,
    },
  };
}

export function ttftText(report: TtftReport): string {
  const ms = ({ median, min, max, runs }: Summary) =>
    `${median.toFixed(1).padStart(8)} ms  (${min.toFixed(1)} .. ${max.toFixed(1)}, ${runs} rounds)`;
  const { ttft_ms, router_ttft_ms, times_as_fast, start_times_as_fast, memory } = report;
  const lines = [`\n${report.model}: ${(report.weights_bytes / 1e6).toFixed(1)} MB of weights, first token`];
  for (const state of states) {
    const start = state === "warm" ? null : start_times_as_fast?.[state];
    const alone = typeof start === "number" ? ` (${start.toFixed(2)} without the computing)` : "";
    const speed = times_as_fast === null ? "" : `   ${times_as_fast[state].toFixed(2)} times as fast${alone}`;
    lines.push(`  ours, ${state.padEnd(22)}${ms(ttft_ms[state])}${speed}`);
  }
  for (const [state, times] of Object.entries(router_ttft_ms ?? {})) {
    lines.push(`  router, ${state.padEnd(20)}${ms(times)}`);
  }
  lines.push(
    `  ${"the disk alone".padEnd(28)}${ms(report.disk_ceiling_ms)}   ours takes ${report.disk_to_ceiling.toFixed(2)} of it`,
    `  worker and engine grew by ${(memory.beyond_arena_bytes / 2 ** 20).toFixed(1)} MiB beyond the arena ` +
      `(a full KV cache is ${(memory.kv_bytes / 2 ** 20).toFixed(1)} MiB)`,
  );
  return lines.join("\n");
}

/** Per model: at least twice the router's speed from disk, ten times from host memory, and a bound on memory. */
export function ttftGoals(reports: readonly TtftReport[]): Goal[] {
  const atLeast = (name: string, wanted: number, figure: number | null): Goal => ({
    ...{ name, wanted: `at least ${wanted}`, figure },
    met: figure === null ? null : figure >= wanted,
  });
  return reports.flatMap(({ model, times_as_fast, memory }) => {
    const beyond = (memory.beyond_arena_bytes - memory.kv_bytes) / 2 ** 20;
    return [
      atLeast(`${model} from disk: times as fast as the router`, 2, times_as_fast?.disk ?? null),
      atLeast(`${model} from host memory: times as fast as the router`, 10, times_as_fast?.host ?? null),
      atLeast(`${model} parked: times as fast as the router`, 10, times_as_fast?.parked ?? null),
      {
        name: `${model}: MiB beyond arena and KV cache`,
        wanted: "at most 64 MiB",
        figure: beyond,
        met: beyond <= 64,
      },
    ];
  });
}
