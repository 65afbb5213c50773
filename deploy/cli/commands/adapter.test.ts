import { expect, test } from "bun:test";
import { formatAdapters } from "./adapter.ts";

test("adapters are listed under the names that requests use", () => {
  const adapter = {
    ...{ id: "llama:legal", model: "llama", name: "legal", rank: 16, weights_bytes: 4_194_304 },
    ...{ checkpoint: "ab".repeat(32), created_at: "2026-01-01T00:00:00.000Z" },
  };
  const [head, row, ...rest] = formatAdapters([adapter]).split("\n");
  expect(head).toMatch(/^NAME +MODEL +RANK +SIZE +CHECKPOINT/);
  expect(row).toMatch(/^llama:legal +llama +16 +4\S* \S+ +abababababab/);
  expect(rest).toEqual([]);
});

test("without any the next command is named", () => {
  expect(formatAdapters([])).toContain("sllm adapter add");
});
