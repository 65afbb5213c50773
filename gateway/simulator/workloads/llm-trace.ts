/** Traces of requests with their token counts, such as Azure's of LLM services; those that name no model share some out. */
import { limits } from "../../../schema/limits.ts";
import { SeededRandom } from "../random.ts";
import { type RequestTrace, toTrace } from "../trace.ts";
import { badTrace, numberIn, readCsv } from "./csv.ts";
import { drawer, zipfShares } from "./gamma.ts";

/** Columns of such a file. `model` is a name of the cluster's. */
export const llmColumns = { required: ["t_s", "in_tokens", "out_tokens"], optional: ["model"] } as const;

export interface LlmTraceOptions {
  /** Names of the cluster's models, in its order. */
  readonly models: readonly string[];
  /** Times are divided by it: 2 makes a trace twice as dense. */
  readonly speed: number;
  /** How requests without a model are shared out: Zipf's exponent. */
  readonly zipf: number;
  readonly seed: number;
}

/** Throws `trace_invalid` naming file and line. */
export function readLlmTrace(file: string, text: string, options: LlmTraceOptions): RequestTrace {
  const { models, speed, zipf, seed } = options;
  const draw = drawer(zipfShares(models.length, zipf), new SeededRandom(seed).fork("popularity"));
  const places = new Map(models.map((name, i) => [name, i] as const));
  const rows = readCsv(file, text, llmColumns).map((row) => {
    const name = row.cells.model;
    const model = name === undefined ? draw() : places.get(name);
    if (model === undefined) throw badTrace(file, row.line, `the cluster has no model '${name}'`);
    const count = (column: string) => Math.min(numberIn(file, row, column, 0, true), limits.context_tokens);
    const arrival_ms = (numberIn(file, row, "t_s", 0, false) * 1_000) / speed;
    return { arrival_ms, model, input_tokens: count("in_tokens"), output_tokens: count("out_tokens") };
  });
  return toTrace(rows);
}
