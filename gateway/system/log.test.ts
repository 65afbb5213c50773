import { expect, test } from "bun:test";
import { createJsonLog } from "./log.ts";

test("a line is one JSON object with time, level, event and fields", () => {
  const lines: string[] = [];
  const log = createJsonLog((line) => lines.push(line), { wallMs: () => 0 });
  log.info("start", { model_id: "a\nb", count: 2, absent: undefined });
  expect(lines).toHaveLength(1);
  expect(lines[0]).not.toContain("\n");
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    ...{ at: "1970-01-01T00:00:00.000Z", level: "info", event: "start", model_id: "a\nb", count: 2 },
  });
});

test("a cause is told with its own cause and its place, bounded", () => {
  const lines: string[] = [];
  const log = createJsonLog((line) => lines.push(line), { wallMs: () => 0 });
  log.error("failed", {}, new Error("outer", { cause: new Error("inner") }));
  log.error("failed", {}, "x".repeat(1_000_000));
  const [first, second] = lines.map((line) => JSON.parse(line));
  expect(first.cause).toBe("Error: outer <- inner");
  expect(first.stack).toContain("log.test.ts");
  expect(second.cause.length).toBeLessThan(10_000);
});
