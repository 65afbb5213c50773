/** Data folder, log lines and pauses of a system: what needs no process to test. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nextBackoff } from "./backoff.ts";
import { clusterToken, makeDataFolder } from "./data-folder.ts";
import { formatLogLine } from "./log-line.ts";
import { readLines } from "./read-lines.ts";

const folder = mkdtempSync(join(tmpdir(), "sllm-system-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the data folder", () => {
  test("is made for its owner alone", () => {
    const data_dir = join(folder, "a", "b");
    makeDataFolder(data_dir);
    expect(statSync(data_dir).mode & 0o777).toBe(0o700);
  });

  test("keeps one token, readable by its owner alone", () => {
    const token = clusterToken(folder);
    expect(token).toMatch(/^[0-9a-f]{64}$/);
    expect(clusterToken(folder)).toBe(token);
    expect(statSync(join(folder, "cluster-token")).mode & 0o777).toBe(0o600);
  });

  test("that cannot be made is refused with advice", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    expect(() => makeDataFolder(join(file, "data"))).toThrow("as data folder");
  });
});

describe("log lines", () => {
  const line = (level: string) =>
    JSON.stringify({
      at: "2026-01-02T03:04:05.678Z",
      level,
      event: "worker_lost",
      worker_id: "w-1",
      note: "a b",
    });

  test("are shown with time, role, event and fields", () => {
    const text = '03:04:05.678 gateway: warn worker_lost worker_id=w-1 note="a b"';
    expect(formatLogLine("gateway", line("warn"), "notable")).toBe(text);
  });

  test("may call their time 'time', and their role is said once", () => {
    const worker = JSON.stringify({
      time: "2026-01-02T03:04:05.678Z",
      role: "worker",
      level: "error",
      event: "x",
    });
    expect(formatLogLine("worker", worker, "notable")).toBe("03:04:05.678 worker: error x");
  });

  test("say a reason once, also when the cause repeats it", () => {
    const failed = JSON.stringify({
      level: "error",
      event: "x",
      reason: "port in use",
      cause: "Error: port in use",
    });
    expect(formatLogLine("gateway", failed, "notable")).toBe('gateway: error x reason="port in use"');
    const other = JSON.stringify({ level: "error", event: "x", reason: "a", cause: "Error: b" });
    expect(formatLogLine("gateway", other, "notable")).toBe('gateway: error x reason=a cause="Error: b"');
  });

  test("of level info are shown only when all are wanted", () => {
    expect(formatLogLine("gateway", line("info"), "notable")).toBeNull();
    expect(formatLogLine("gateway", line("info"), "all")).toStartWith("03:04:05.678 gateway: worker_lost");
  });

  test.each(["Segmentation fault", "{ not json", '{"no":"event"}'])(
    "that are not ours are shown: %p",
    (text) => {
      expect(formatLogLine("worker", text, "notable")).toBe(`worker: ${text}`);
    },
  );

  test("are cut from a byte stream, also inside a character", async () => {
    const bytes = new TextEncoder().encode("eins\r\nzwö\n\ndrei");
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const lines: string[] = [];
    await readLines(stream, (text) => lines.push(text));
    expect(lines).toEqual(["eins", "zwö", "", "drei"]);
  });
});

describe("the pause before a restart", () => {
  test("doubles with every crash up to half a minute", () => {
    let backoff = nextBackoff(null, 0);
    const pauses = [backoff.delay_ms];
    for (let i = 0; i < 8; i++) {
      backoff = nextBackoff(backoff, 100);
      pauses.push(backoff.delay_ms);
    }
    expect(pauses).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  });

  test("is short again after a long run", () => {
    expect(nextBackoff({ crashes: 8, delay_ms: 30_000 }, 60_000)).toEqual({ crashes: 1, delay_ms: 500 });
  });
});
