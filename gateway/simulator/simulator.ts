/** The simulator's door: what the command line and measurements use of it. */
export { type CdfLine, cdfPicture } from "./cdf.ts";
export { checkCluster } from "./check-cluster.ts";
export { modelsOf } from "./cluster-spec.ts";
export { type Plan, planFleet } from "./plan.ts";
export { type Simulation, simulate } from "./simulate.ts";
export { type Summary, startupTimes, summarize } from "./summary.ts";
export type { RequestTrace } from "./trace.ts";
export type { Settle } from "./virtual-clock.ts";
export { headerOf } from "./workloads/csv.ts";
export { functionColumns, readFunctionsTrace } from "./workloads/functions-trace.ts";
export { type GammaWorkload, gammaTrace } from "./workloads/gamma.ts";
export { gsm8k, type Lengths } from "./workloads/lengths.ts";
export { llmColumns, publishedColumns, readLlmTrace } from "./workloads/llm-trace.ts";
