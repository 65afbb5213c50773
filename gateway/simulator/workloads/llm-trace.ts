/** Traces of requests with their token counts, such as Azure's of LLM services; those that name no model share some out. */
import { limits } from "../../../schema/limits.ts";
import { SeededRandom } from "../random.ts";
import { type RequestTrace, toTrace } from "../trace.ts";
import { badTrace, type CsvRow, headerOf, numberIn, readCsv } from "./csv.ts";
import { drawer, zipfShares } from "./gamma.ts";

/** Columns of such a file. `model` is a name of the cluster's. */
export const llmColumns = { required: ["t_s", "in_tokens", "out_tokens"], optional: ["model"] } as const;
/** The same as Azure publishes them: times of the day and year, UTC. */
export const publishedColumns = {
  required: ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
  optional: ["model"],
} as const;

export interface LlmTraceOptions {
  /** Names of the cluster's models, in its order. */
  readonly models: readonly string[];
  /** Times are divided by it: 2 makes a trace twice as dense. */
  readonly speed: number;
  /** How requests without a model are shared out: Zipf's exponent. */
  readonly zipf: number;
  readonly seed: number;
}

/** In either form, by its header. Throws `trace_invalid` naming file and line. */
export function readLlmTrace(file: string, text: string, options: LlmTraceOptions): RequestTrace {
  const { models, speed, zipf, seed } = options;
  const draw = drawer(zipfShares(models.length, zipf), new SeededRandom(seed).fork("popularity"));
  const places = new Map(models.map((name, i) => [name, i] as const));
  const isPublished = headerOf(file, text).includes(publishedColumns.required[0]);
  const columns = isPublished ? publishedColumns : llmColumns;
  const [time, input, output] = columns.required;
  const rows = readCsv(file, text, columns);
  const times_ms = rows.map((row) =>
    isPublished ? timestampIn(file, row, time) : numberIn(file, row, time, 0, false) * 1_000,
  );
  const begin_ms = isPublished
    ? times_ms.reduce((least, at_ms) => Math.min(least, at_ms), Number.POSITIVE_INFINITY)
    : 0;
  const requests = rows.map((row, i) => {
    const name = row.cells.model;
    const model = name === undefined ? draw() : places.get(name);
    if (model === undefined) throw badTrace(file, row.line, `the cluster has no model '${name}'`);
    const count = (column: string) => Math.min(numberIn(file, row, column, 0, true), limits.context_tokens);
    const arrival_ms = ((times_ms[i] ?? 0) - begin_ms) / speed;
    return { arrival_ms, model, input_tokens: count(input), output_tokens: count(output) };
  });
  return toTrace(requests);
}

const timestamp = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|\+00:00)?$/;

/** Milliseconds of a time like `2023-11-16 18:17:03.9799600`; its fractions have more digits than dates can. */
function timestampIn(file: string, { line, cells }: CsvRow, name: string): number {
  const text = (cells[name] ?? "").trim();
  const [, day, time, fraction = "0"] = timestamp.exec(text) ?? [];
  const second_ms = Date.parse(`${day}T${time}Z`);
  if (Number.isNaN(second_ms)) {
    throw badTrace(file, line, `'${name}' is '${text.slice(0, 40)}', not a time like 2023-11-16 18:17:03.97`);
  }
  return second_ms + Number(fraction) * 1_000;
}
