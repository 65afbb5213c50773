import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { SllmError } from "../../../schema/error.ts";
import { testSeed } from "../../../test/support/property.ts";
import type { RequestTrace } from "../trace.ts";
import { functionColumns, readFunctionsTrace } from "./functions-trace.ts";
import { gammaTrace, zipfShares } from "./gamma.ts";
import { gsm8k } from "./lengths.ts";
import { readLlmTrace } from "./llm-trace.ts";

const llm = { models: ["a", "b"], speed: 1, zipf: 0, seed: 1 };
const calls = {
  from_minute: 480,
  window_minutes: 2,
  most_per_minute: 60,
  without_timers: false,
  lengths: gsm8k,
};

/** Where the public traces lie, if anywhere; see docs/simulate.md for their sources. */
const traces = process.env.SLLM_TEST_TRACES ?? "";

describe("made-up arrivals", () => {
  test("come at their rate and with their variation", () => {
    for (const cv of [1, 4]) {
      const workload = { requests_per_s: 10, cv, zipf: 0, duration_ms: 3_600_000, lengths: gsm8k };
      const trace = gammaTrace({ ...workload, stream: "aggregate" }, 4, testSeed);
      const gaps = [...trace.arrival_ms.slice(1)].map((at_ms, i) => at_ms - (trace.arrival_ms[i] ?? 0));
      const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
      const deviation = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length);
      // Six standard errors of 36,000 intervals with CV 4.
      expect(Math.abs(mean - 100)).toBeLessThan(100 * 0.13);
      expect(Math.abs(deviation / mean - cv)).toBeLessThan(cv * 0.25);
    }
  });

  test("models are asked for by their ranks, in bursts of their own or of all", () => {
    const workload = { requests_per_s: 50, cv: 1, zipf: 1, duration_ms: 600_000, lengths: gsm8k };
    for (const stream of ["aggregate", "per-model"] as const) {
      const trace = gammaTrace({ ...workload, stream }, 3, testSeed);
      const shares = zipfShares(3, 1);
      for (const [model, share] of shares.entries()) {
        const own = trace.model.filter((place) => place === model).length;
        expect(Math.abs(own / trace.count - share)).toBeLessThan(0.03);
      }
      expect(isSorted(trace)).toBe(true);
    }
  });
});

describe("traces", () => {
  test("requests without a model are shared out, those with one keep it, and times are divided by the speed", () => {
    const shared = readLlmTrace("t.csv", "t_s,in_tokens,out_tokens\n0.5,10,20\n1,1,2\n", {
      ...llm,
      speed: 2,
    });
    expect([...shared.arrival_ms]).toEqual([250, 500]);
    expect([...shared.output_tokens]).toEqual([20, 2]);
    const named = readLlmTrace("t.csv", "model,t_s,in_tokens,out_tokens\nb,0,1,1\na,1,1,1\n", llm);
    expect([...named.model]).toEqual([1, 0]);
  });

  test("bad rows are named by file and line, unknown columns with the known ones", () => {
    const read = (text: string) => messageOf(() => readLlmTrace("bad.csv", text, llm));
    expect(read("t_s,in_tokens,out_tokens\n1,2,3\n1,x,3\n")).toStartWith("bad.csv:3: 'in_tokens' is 'x'");
    expect(read("t_s,in_tokens,out_tokens\n-1,2,3\n")).toStartWith("bad.csv:2: 't_s' is '-1'");
    expect(read("t_s,in_tokens,out_tokens\n1,2\n")).toBe("bad.csv:2: 2 cells, the header has 3");
    expect(read("t_s,in_tokens,out_tokens,size\n")).toBe(
      "bad.csv:1: unknown column 'size'; known are t_s, in_tokens, out_tokens, model",
    );
    expect(read("t_s,in_tokens\n")).toBe("bad.csv:1: column 'out_tokens' is missing");
    expect(read("t_s,in_tokens,out_tokens,model\n1,2,3,c\n")).toBe("bad.csv:2: the cluster has no model 'c'");
  });

  test("requests as Azure publishes them come at their times after the first, in UTC", () => {
    const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    const rows =
      "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 23:59:59.5,7,8\n2023-11-17T00:00:00Z,1,2\n";
    const { arrival_ms, input_tokens } = readLlmTrace("azure.csv", header + rows, llm);
    const day_ms = ((23 - 18) * 3_600 + (59 - 17) * 60 + (59 - 3)) * 1_000 + 500 - 979.96;
    expect([...arrival_ms].map((at_ms) => Math.round(at_ms * 100) / 100)).toEqual([0, day_ms, day_ms + 500]);
    expect([...input_tokens]).toEqual([4_808, 7, 1]);
    for (const time of ["yesterday", "2023-11-16", "2023-13-40 00:00:00", "2023-11-16 18:17:03+02:00", ""]) {
      const message = messageOf(() => readLlmTrace("azure.csv", `${header}${time},1,1\n`, llm));
      expect(message).toStartWith(`azure.csv:2: 'TIMESTAMP' is '${time}'`);
    }
  });

  test("functions of a window become models, each call in its minute, without those that are called too often", () => {
    const header = `func_rank,trigger,"${functionColumns.required[2]}"`;
    const text = `${header}\n0,http,480:100 481:1\n1,timer,480:2 481:3\n2,http,479:5 481:4\n3,http,500:9\n`;
    const trace = readFunctionsTrace("calls.csv", text, { ...calls, models: 2, seed: testSeed });
    expect(trace.count).toBe(9);
    const counts = [0, 1].map((model) => trace.model.filter((place) => place === model).length);
    expect(counts.sort()).toEqual([4, 5]);
    expect(trace.arrival_ms.filter((at_ms) => at_ms >= 60_000)).toHaveLength(7);
    const message = messageOf(() => readFunctionsTrace("calls.csv", text, { ...calls, models: 3, seed: 1 }));
    expect(message).toBe("calls.csv:1: 2 functions are active in the window, the cluster has 3 models");
  });

  test.skipIf(!existsSync(`${traces}/azure_llm_2023_code.csv.gz`))(
    "SLLM_TEST_TRACES: Azure's traces can be read",
    () => {
      const read = (name: string) => gunzipSync(readFileSync(`${traces}/${name}`)).toString("utf8");
      expect(readLlmTrace("code", read("azure_llm_2023_code.csv.gz"), llm).count).toBe(8_819);
      const functions = read("azure_functions_2019_sample500_8h_permin_sparse.csv.gz");
      const window = { ...calls, window_minutes: 30, models: 64, seed: 1 };
      expect(readFunctionsTrace("functions", functions, window).count).toBeGreaterThan(1_000);
    },
  );
});

function isSorted({ arrival_ms }: RequestTrace): boolean {
  return arrival_ms.every((at_ms, i) => i === 0 || at_ms >= (arrival_ms[i - 1] ?? 0));
}

function messageOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    if (error instanceof SllmError && error.code === "trace_invalid") return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
}
