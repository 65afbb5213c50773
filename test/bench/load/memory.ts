/** What a process holds in memory, read from /proc, and how many weight bytes an engine has copied. */
import { readFileSync } from "node:fs";

export interface ProcessMemory {
  /** Proportional share: what would be freed if the process ended, shared pages divided among those who map them. */
  readonly pss_bytes: number;
  /** Private memory without a file behind it: heap, KV cache, compute buffers, and weights that were copied. */
  readonly anonymous_bytes: number;
  /** Bytes of shared memory files that are mapped: host copies of weights. */
  readonly shared_mapped_bytes: number;
}

/** Memory of this process now. */
export function processMemory(): ProcessMemory {
  const rollup = readFileSync("/proc/self/smaps_rollup", "utf8");
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1] ?? 0) * 1024;
  return {
    pss_bytes: field("Pss"),
    anonymous_bytes: field("Anonymous"),
    shared_mapped_bytes: sharedMappedBytes(readFileSync("/proc/self/maps", "utf8")),
  };
}

/** Bytes of a /proc/<pid>/maps text that map memory files as shared; addresses are compared, so nothing counts twice. */
export function sharedMappedBytes(maps: string): number {
  let total = 0;
  for (const line of maps.split("\n")) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) ..(?:.)s \S+ \S+ \S+\s+\/(?:memfd:|anon_hugepage)/.exec(line);
    if (match !== null) total += Number(BigInt(`0x${match[2]}`) - BigInt(`0x${match[1]}`));
  }
  return total;
}

/** What an engine may need beyond its KV cache without being suspected of a copy: compute buffers, vocabulary, heap. */
const ownBytes = 256 * 1024 * 1024;

/**
 * Weight bytes that an engine process copied into memory of its own. Weights that it does not map must have been
 * copied; and private memory that grew by more than a KV cache and what an engine needs holds a copy, whatever is
 * mapped beside it.
 */
export function bytesCopied(facts: {
  readonly weights_bytes: number;
  readonly mapped_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly kv_bytes: number;
}): number {
  const unmapped = Math.max(0, facts.weights_bytes - facts.mapped_bytes);
  const grown = facts.anonymous_growth_bytes - facts.kv_bytes;
  const held = grown > ownBytes ? Math.min(grown, facts.weights_bytes) : 0;
  return Math.max(unmapped, held);
}
