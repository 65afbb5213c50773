/** The texts around the tables of the experiments. Pure. */
import type { Spread } from "../../gateway/simulator/summary.ts";
import { cv, duration_ms, paperCluster, type SizeName, seeds, sizes, zipf } from "./cases.ts";
import { type Distance, optimumCases } from "./optimum.ts";
import { paperShelves } from "./paper.ts";
import { type Comparison, realityPlan } from "./reality.ts";
import { type CaseReport, caseTable } from "./report.ts";
import type { Speed } from "./speed.ts";

/** What the paper says of its cluster, as far as we know its text; figures were read second-hand. */
const paperNumbers: Readonly<Record<SizeName, string>> = {
  "opt-6.7b":
    "The paper's ServerlessLLM has a mean start-up of 0.8 s (Ray Serve 12.1 s, with a cache on disk 8.2 s), and at 1.4 requests per second on GSM8K a P99 1.27 times lower than Shepherd* (here `preemptive`) and 1.95 times lower than the serverless default (here `random`); at low rates they are equal.",
  "opt-13b": "The paper has a mean of about 1.6 s for OPT-13B, on ShareGPT.",
  "opt-30b":
    "The paper has a mean of 7.5 s for OPT-30B (Ray Serve 213 s, with a cache on disk 199.2 s); 89 % of its requests were served within 300 s, 26 % of those of Ray Serve with a cache.",
};

export function paperText(
  size: SizeName,
  shelves: keyof typeof paperShelves,
  reports: readonly CaseReport[],
  pictures: readonly string[],
): string {
  const { disk_copies, host_memory_bytes } = paperShelves[shelves];
  const [host] = paperCluster(size, paperShelves[shelves]).hosts;
  const { copies, token_ms } = sizes[size];
  const where = disk_copies === null ? "on every disk" : `on ${disk_copies} disk`;
  return [
    `# ${size}: ${shelves === "plenty" ? "every model on every disk" : "one copy of each model"}`,
    "",
    `${host?.count} hosts with ${host?.devices} devices, ${copies} models ${where}, ${host_memory_bytes / 1e9} GB of memory for weights`,
    `per host, disks of ${(host?.disk_bytes_per_s ?? 0) / 1e9} GB/s, buses of ${(host?.bus_bytes_per_s ?? 0) / 1e9} GB/s, network of 10 Gbit/s, ${token_ms} ms a token, one request at a time.`,
    `Gamma intervals of all requests together with CV ${cv}, models by Zipf's law with ${zipf}, lengths of GSM8K, ${duration_ms / 60_000} minutes,`,
    `seeds ${seeds.join(", ")} pooled, 300 s of patience. Times in seconds. The bound is that of \`bound/capacity.ts\`, the schedule that`,
    "knows all that of `bound/clairvoyant.ts`; a plain queue is first come, first served, each request for itself.",
    "",
    paperNumbers[size],
    "",
    ...reports.map(caseTable),
    ...pictures.map((file) => `![start-up times](${file})`),
  ].join("\n");
}

export function optimumText(distances: readonly Distance[]): string {
  const { count, requests, devices, models, seed } = optimumCases;
  const rows = distances.map(
    ({ policy, ratio, share_best, worst }) =>
      `| ${policy} | ${ratio.toFixed(2)} | ${(100 * share_best).toFixed(0)} % | ${worst.toFixed(1)} |`,
  );
  return [
    "# Distance from the best schedule",
    "",
    `${count} random cases of ${requests} requests for ${models} models on ${devices} devices within six seconds, seed ${seed}. A start takes`,
    "1 s from anywhere, answers 0.2 to 2.2 s. The best schedule knows all requests beforehand, but starts a model only when",
    "one of its requests has come; it neither moves nor preempts (`bound/exact.ts` tries all orders).",
    "",
    "| policy | sum of start-up times to the best | cases as good as the best | worst case |",
    "|---|---|---|---|",
    ...rows,
    "",
    "On one host with one kind of link `random` and `locality` differ in ties alone. `preemptive` stops work for whoever",
    "comes, also for those it has just stopped: where more models are wanted than there are devices it may do little else.",
  ].join("\n");
}

export function speedText(speeds: readonly Speed[]): string {
  const rows = speeds.map(({ name, hosts, requests, simulated_s, wall_s }) => {
    const perRequest = ((wall_s / requests) * 1e6).toFixed(0);
    return `| ${name} | ${hosts} | ${requests} | ${simulated_s.toFixed(0)} s | ${wall_s.toFixed(1)} s | ${perRequest} µs |`;
  });
  return [
    "# Speed of the simulator",
    "",
    "One thread. A million requests: 16 devices, 16 models of eight slots, 20 requests per second, Poisson. Ten thousand",
    "hosts: 40,000 devices, 500 models on 20 disks each, 50 requests per second, all from cold.",
    "",
    "| case | hosts | requests | simulated | took | per request |",
    "|---|---|---|---|---|---|",
    ...rows,
  ].join("\n");
}

export function realityText(comparisons: readonly Comparison[]): string {
  const seconds = (ms: number) => (ms / 1_000).toFixed(2);
  const off = (simulated: number, live: number) => `${(100 * (simulated / live - 1)).toFixed(0)} %`;
  const rows = comparisons.map(({ seed, requests, live_ms, simulated_ms }) => {
    const cells = (of: (spread: Spread) => number) => {
      const live = live_ms.map(of);
      const mean = live.reduce((sum, one) => sum + one, 0) / live.length;
      const each = live.map(seconds).join(", ");
      return `${seconds(mean)} (${each}) | ${seconds(of(simulated_ms))} | ${off(of(simulated_ms), mean)}`;
    };
    return `| ${seed} | ${requests} | ${cells(({ mean }) => mean)} | ${cells(({ p95 }) => p95)} |`;
  });
  const { workers, models, size_bytes, disk_bytes_per_s, token_ms, cv, zipf, keep_alive_ms } = realityPlan;
  return [
    "# The simulator against a live fleet",
    "",
    `A gateway and ${workers} workers as processes on one machine: real stores, each reading at most ${disk_bytes_per_s / 1e6} MB/s, and the echo`,
    `engine at ${token_ms} ms a token, one request at a time. ${models} models of ${size_bytes / 1e6} MB, room for ${realityPlan.instances_per_worker} on each worker, keep-alive ${keep_alive_ms / 1_000} s,`,
    `${realityPlan.requests_per_s} request per second with CV ${cv}, Zipf ${zipf}, lengths of GSM8K, ${realityPlan.duration_ms / 1_000} s. The simulation has the median times of`,
    "starts from memory and from disk and between tokens of these runs and is told nothing else. Times from the request to its first",
    "token as the client sees it, in seconds; live: the mean of the times that a seed was played, and each.",
    "",
    "| seed | requests | mean, live | simulated | off | P95, live | simulated | off |",
    "|---|---|---|---|---|---|---|---|",
    ...rows,
  ].join("\n");
}
