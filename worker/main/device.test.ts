import { expect, test } from "bun:test";
import {
  arenaBytes,
  defaultMemoryBytes,
  defaultPrefaultBytes,
  defaultThreads,
  type ReadText,
} from "./device.ts";

const gibibyte = 1024 ** 3;
const reader =
  (files: Record<string, string>): ReadText =>
  (file) =>
    files[file] ?? null;
const meminfo = `MemTotal: 99 kB\nMemAvailable:   ${(10 * gibibyte) / 1024} kB\n`;

test("without control groups models get 80 % of the available memory", () => {
  expect(defaultMemoryBytes(reader({ "/proc/meminfo": meminfo }))).toBe(8 * gibibyte);
});

test("the tightest limit of the control groups above the process counts, page cache excepted", () => {
  const files = {
    "/proc/meminfo": meminfo,
    "/proc/self/cgroup": "0::/pod/worker\n",
    "/sys/fs/cgroup/pod/worker/memory.max": "max\n",
    "/sys/fs/cgroup/pod/memory.max": `${5 * gibibyte}\n`,
    "/sys/fs/cgroup/pod/memory.current": `${3 * gibibyte}\n`,
    "/sys/fs/cgroup/pod/memory.stat": `anon 1\ninactive_file ${2 * gibibyte}\nactive_file 5\n`,
  };
  expect(defaultMemoryBytes(reader(files))).toBe(Math.floor(0.8 * 4 * gibibyte));
});

test("a group that is full leaves nothing", () => {
  const files = {
    "/proc/meminfo": meminfo,
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/memory.max": "1000\n",
    "/sys/fs/cgroup/memory.current": "5000\n",
  };
  expect(defaultMemoryBytes(reader(files))).toBe(0);
});

test("one core is left to the processes around the engine, and one thread computes at least", () => {
  expect([1, 2, 64].map((cores) => defaultThreads(cores))).toEqual([1, 1, 63]);
});

test("the arena holds what memory can be booked for, however small the models", () => {
  expect(arenaBytes(0)).toBe(256 * 16 * 1024 ** 2);
  expect(arenaBytes(8 * gibibyte)).toBe(12 * gibibyte);
});

test("an eighth of the memory is made ready, at most 2 GiB", () => {
  expect(defaultPrefaultBytes(8 * gibibyte)).toBe(gibibyte);
  expect(defaultPrefaultBytes(100 * gibibyte)).toBe(2 * gibibyte);
});
