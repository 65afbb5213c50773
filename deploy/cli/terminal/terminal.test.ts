/** Tables, sizes, progress and timelines as text. */
import { describe, expect, test } from "bun:test";
import { formatTimeline } from "../demo/timeline.ts";
import { createStatusLine, formatProgress } from "./progress.ts";
import { formatBytes, formatCount, formatTable } from "./table.ts";

describe("text for people", () => {
  test("tables align their columns and end lines without spaces", () => {
    const table = formatTable(
      [{ title: "NAME" }, { title: "SIZE", align: "right" }, { title: "X" }],
      [
        ["tiny", "6 MiB", "a"],
        ["large-model", "120 MiB", ""],
      ],
    );
    expect(table).toBe("NAME            SIZE  X\ntiny           6 MiB  a\nlarge-model  120 MiB");
  });

  test.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [6_300_000, "6.0 MiB"],
    [137_438_953_472, "128 GiB"],
  ])("%p bytes are %p", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  test.each([
    [999, "999"],
    [3_145_728, "3.15M"],
    [70_553_706_496, "70.6B"],
  ])("a count of %p is %p", (count, text) => expect(formatCount(count)).toBe(text));

  test("progress fills its bar and never goes beyond it", () => {
    expect(formatProgress(512, 1024)).toBe("[###############...............] 50 %  512 B of 1.0 KiB");
    expect(formatProgress(2048, 1024)).toStartWith("[##############################] 100 %");
    expect(formatProgress(0, 0)).toStartWith("[##############################] 100 %");
  });

  test("a status line writes to terminals only, and removes itself", () => {
    const written: string[] = [];
    const write = (text: string) => written.push(text);
    const piped = createStatusLine({ isTTY: false, write });
    piped.show("working");
    piped.clear();
    expect(written).toEqual([]);
    const shown = createStatusLine({ isTTY: true, columns: 5, write });
    shown.show("working");
    shown.clear();
    expect(written).toEqual(["\r\u001b[2Kwork", "\r\u001b[2K"]);
  });

  test("a timeline has a line for every stage, with bars in proportion to the total", () => {
    const text = formatTimeline({
      queue: 0,
      process_start: 25,
      disk_read: 5,
      model_build: 50,
      resume: 0,
      prefill: 10,
      first_token: 1.25,
      total: 100,
    });
    const lines = text.split("\n");
    expect(lines).toHaveLength(8);
    expect(lines[0]).toBe("  queue            0.0 ms");
    expect(lines[1]).toBe(`  process start   25.0 ms  ${"#".repeat(12)}`);
    expect(lines[7]).toBe(`  total          100.0 ms  ${"#".repeat(48)}`);
  });
});
