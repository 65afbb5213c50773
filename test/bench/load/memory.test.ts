/** What counts as mapped, and what as copied. */
import { describe, expect, test } from "bun:test";
import { bytesCopied, processMemory, sharedMappedBytes } from "./memory.ts";

const gigabyte = 1e9;

describe("weight bytes that an engine copied", () => {
  const inPlace = {
    weights_bytes: 4 * gigabyte,
    mapped_bytes: 4 * gigabyte + 4096,
    anonymous_growth_bytes: 1.05 * gigabyte,
    kv_bytes: gigabyte,
    read_bytes: 1e6,
  };

  test("are none when all weights are mapped and private memory grew by the KV cache and a little", () => {
    expect(bytesCopied(inPlace)).toBe(0);
  });

  test("are all of them when nothing is mapped", () => {
    expect(bytesCopied({ ...inPlace, mapped_bytes: 0 })).toBe(4 * gigabyte);
  });

  test("show in private memory even if the host copy stays mapped", () => {
    expect(bytesCopied({ ...inPlace, anonymous_growth_bytes: 5.1 * gigabyte })).toBe(4 * gigabyte);
  });

  test("show when system calls delivered them", () => {
    expect(bytesCopied({ ...inPlace, read_bytes: 3 * gigabyte })).toBe(3 * gigabyte);
  });

  test("are never more than there are", () => {
    expect(bytesCopied({ ...inPlace, read_bytes: 9 * gigabyte })).toBe(4 * gigabyte);
  });
});

test("only shared mappings of memory files count as mapped weights", () => {
  const maps = [
    "7f0000000000-7f0000001000 r--s 00000000 00:01 12   /memfd:sllm-host-copy (deleted)",
    "7f0000001000-7f0000003000 rw-s 00001000 00:01 12   /memfd:sllm-host-copy (deleted)",
    "7f0000003000-7f0000009000 rw-p 00000000 00:01 12   /memfd:sllm-host-copy (deleted)",
    "7f0000009000-7f000000a000 r--s 00000000 fe:00 99   /var/lib/file",
    "7f000000a000-7f000000b000 rw-p 00000000 00:00 0    [heap]",
  ].join("\n");
  expect(sharedMappedBytes(maps)).toBe(0x3000);
});

test("the system tells all counters of this process", () => {
  const memory = processMemory();
  expect(memory.pss_bytes).toBeGreaterThan(memory.shared_memory_pss_bytes);
  expect(memory.anonymous_bytes).toBeGreaterThan(0);
  expect(memory.read_bytes).toBeGreaterThan(0);
});
