/** Real traffic: Azure's traces of LLM services and of functions, on the paper's cluster for OPT-6.7B. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { gsm8k, modelsOf, readFunctionsTrace, readLlmTrace } from "../../gateway/simulator/simulator.ts";
import { compared, paperCluster, scarce, zipf } from "./cases.ts";
import { measure, type Traffic } from "./measure.ts";
import type { CaseReport } from "./report.ts";

const size = "opt-6.7b";
/** Azure's services have answers of 28 and 211 tokens and come 2.6 and 5.5 times a second: slowed to a load of a third. */
const slots = 4;

/** null where the folder does not hold the traces. */
export async function runAzure(folder: string): Promise<CaseReport[] | null> {
  const code = path.join(folder, "azure_llm_2023_code.csv.gz");
  const conversations = path.join(folder, "azure_llm_2023_conv.csv.gz");
  const functions = path.join(folder, "azure_functions_2019_sample500_8h_permin_sparse.csv.gz");
  if (![code, conversations, functions].every((file) => existsSync(file))) return null;
  const cluster = paperCluster(size, scarce, slots);
  const names = modelsOf(cluster).map(({ model_id }) => model_id);
  const read = (file: string) => gunzipSync(readFileSync(file)).toString("utf8");
  const llm = (file: string, speed: number): Traffic => ({
    seed: 1,
    trace: readLlmTrace(path.basename(file), read(file), { models: names, speed, zipf, seed: 1 }),
  });
  const calls = (seed: number): Traffic => ({
    seed,
    trace: readFunctionsTrace(path.basename(functions), read(functions), {
      ...{ models: names.length, from_minute: 480, window_minutes: 30, most_per_minute: 60 },
      ...{ without_timers: false, lengths: gsm8k, seed },
    }),
  });
  const cases = [
    { title: "Azure LLM 2023, code, as it is", traffic: [llm(code, 1)] },
    { title: "Azure LLM 2023, conversations, at half speed", traffic: [llm(conversations, 0.5)] },
    {
      title: "Azure Functions 2019, 32 functions, 30 minutes, three samples",
      traffic: [calls(1), calls(2), calls(3)],
    },
  ];
  const reports: CaseReport[] = [];
  for (const { title, traffic } of cases) {
    const results = [];
    for (const system of compared) results.push(await measure(title, cluster, system, traffic));
    // With several slots a device computes several requests at once: the bound is for one.
    reports.push({ title, results, bound_ms: null, reached_ms: null });
  }
  return reports;
}
