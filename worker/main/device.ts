/** What this host has for models and how it is shared out: memory within its control group's limit, and cores. Reads Linux's own files. */
import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { limits } from "../../schema/limits.ts";

/** Part of the available memory that models may use when nobody says otherwise. */
const modelShare = 0.8;
const controlGroupRoot = "/sys/fs/cgroup";

/** Reads a text file; null when it is not there. */
export type ReadText = (file: string) => string | null;

/** Reads from this host; files that do not exist here (another system, no control groups) count as absent. */
export const readHostText: ReadText = (file) => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // Which of these files exist differs from kernel to kernel; each has a fallback.
    return null;
  }
};

/** Memory for models in bytes when no setting gives it: a share of what is available now. */
export function defaultMemoryBytes(read: ReadText = readHostText): number {
  return Math.floor(availableBytes(read) * modelShare);
}

/**
 * Size of the store's arena for a memory budget. A copy takes whole chunks, and what the last one holds beyond its
 * weights costs address space, not memory: with a chunk to spare per instance, what memory is booked for always fits.
 */
export function arenaBytes(memory_bytes: number): number {
  return memory_bytes + limits.instances * limits.chunk_bytes;
}

/** Part of the arena to make ready at the start when no setting says how much. */
export function defaultPrefaultBytes(memory_bytes: number): number {
  return Math.min(Math.floor(memory_bytes / 8), 2 ** 31);
}

/**
 * Compute threads when no setting gives them: all cores but one. The threads of an engine wait for each other many
 * times per token; when one of them loses its core to the processes that carry the tokens, all of them wait.
 */
export function defaultThreads(cores: number = os.availableParallelism()): number {
  return Math.max(1, cores - 1);
}

/** What the host could give, and what the control groups above this process still allow. */
function availableBytes(read: ReadText): number {
  const host = memAvailable(read("/proc/meminfo")) ?? os.freemem();
  return Math.min(host, ...controlGroups(read).map((folder) => leftInGroup(read, folder)));
}

function memAvailable(meminfo: string | null): number | null {
  const match = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo ?? "");
  return match ? Number(match[1]) * 1024 : null;
}

/** Folders of this process's control group (version 2) and of those above it. */
function controlGroups(read: ReadText): string[] {
  const own = /^0::(.*)$/m.exec(read("/proc/self/cgroup") ?? "")?.[1];
  if (own === undefined) return [];
  const folders: string[] = [];
  for (let group = path.join("/", own); ; group = path.dirname(group)) {
    folders.push(path.join(controlGroupRoot, group));
    if (group === "/") return folders;
  }
}

/** Bytes a group may still take; page cache that the kernel gives back on demand counts as free. */
function leftInGroup(read: ReadText, folder: string): number {
  const limit = (read(path.join(folder, "memory.max")) ?? "max").trim();
  if (limit === "max") return Number.POSITIVE_INFINITY;
  const used = Number(read(path.join(folder, "memory.current")) ?? 0);
  const stat = read(path.join(folder, "memory.stat")) ?? "";
  const reclaimable = Number(/^inactive_file (\d+)$/m.exec(stat)?.[1] ?? 0);
  return Math.max(0, Number(limit) - used + reclaimable);
}
