/** What a process holds in memory, read from /proc, and how many weight bytes an engine has copied. */
import { readFileSync } from "node:fs";

export interface ProcessMemory {
  /** Proportional share: what would be freed if the process ended, shared pages divided among those who map them. */
  readonly pss_bytes: number;
  /** The part of it in shared memory files: the arena of host copies, which has a budget of its own. */
  readonly shared_memory_pss_bytes: number;
  /** Private memory without a file behind it: heap, KV cache, compute buffers, and weights that were copied. */
  readonly anonymous_bytes: number;
  /** Bytes of shared memory files that are mapped: host copies of weights. */
  readonly shared_mapped_bytes: number;
  /** Bytes that system calls have copied to the process so far, whatever file or memory they came from. */
  readonly read_bytes: number;
}

/** Memory of a process now; of this one if no id is given. Throws when the process is gone or belongs to another user. */
export function processMemory(pid: number | "self" = "self"): ProcessMemory {
  const text = (name: string) => readFileSync(`/proc/${pid}/${name}`, "utf8");
  const rollup = text("smaps_rollup");
  return {
    pss_bytes: kilobytes(rollup, "Pss"),
    shared_memory_pss_bytes: kilobytes(rollup, "Pss_Shmem"),
    anonymous_bytes: kilobytes(rollup, "Anonymous"),
    shared_mapped_bytes: sharedMappedBytes(text("maps")),
    read_bytes: Number(/^rchar: (\d+)/m.exec(text("io"))?.[1] ?? Number.NaN),
  };
}

function kilobytes(rollup: string, name: string): number {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1];
  if (found === undefined) throw new Error(`the system does not tell ${name}`);
  return Number(found) * 1024;
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

/** What an engine may hold beside its KV cache: compute buffers, vocabulary, heap. The bound of the memory goal. */
export const ownBytes = 64 * 1024 * 1024;

export interface CopyFacts {
  readonly weights_bytes: number;
  /** Shared memory that came into the address space. */
  readonly mapped_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly kv_bytes: number;
  /** Copied by system calls in the meantime; 0 where they had to read the weights from disk. */
  readonly read_bytes: number;
}

/**
 * Weight bytes that an engine process copied into memory of its own: the largest of what three counters of the system
 * show. Weights that it does not map must have been copied; private memory that grew by more than a KV cache and what
 * an engine needs holds a copy, whatever is mapped beside it; and so does what system calls have delivered, but for the
 * header.
 */
export function bytesCopied(facts: CopyFacts): number {
  const unmapped = Math.max(0, facts.weights_bytes - facts.mapped_bytes);
  const beyond = (bytes: number) => (bytes > ownBytes ? Math.min(bytes, facts.weights_bytes) : 0);
  const held = beyond(facts.anonymous_growth_bytes - facts.kv_bytes);
  return Math.max(unmapped, held, beyond(facts.read_bytes));
}
