/** A lock file that belongs to a process: two gateways must never open one database folder. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { z } from "zod";

const owner = z.object({ pid: z.number().int(), started: z.string().nullable() });
type Owner = z.infer<typeof owner>;

/** Held until `release`, or until the process ends: a lock of a dead process is taken over. */
export interface FolderLock {
  release(): void;
}

/** Throws an Error that names the owner when a living process holds the lock. */
export function lockFolder(path: string): FolderLock {
  const mine = JSON.stringify({ pid: process.pid, started: startOf(process.pid) } satisfies Owner);
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, mine, { mode: 0o600 });
  try {
    if (!link(draft, path)) {
      removeStale(path);
      if (!link(draft, path)) throw inUse(path, readOwner(readFileSync(path, "utf8")));
    }
  } finally {
    rmSync(draft, { force: true });
  }
  return { release: () => rmSync(path, { force: true }) };
}

/** Links are made whole or not at all, unlike a file that is created first and filled later. */
function link(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (thrown) {
    if (isCode(thrown, "EEXIST")) return false;
    throw thrown;
  }
}

/**
 * Removes the lock of a dead process. Two processes may find the same one: it is moved aside first, and who then
 * holds another lock than the one it judged puts it back.
 */
function removeStale(path: string): void {
  let judged: string;
  try {
    judged = readFileSync(path, "utf8");
  } catch (thrown) {
    if (isCode(thrown, "ENOENT")) return;
    throw thrown;
  }
  const holder = readOwner(judged);
  if (holder !== null && isAlive(holder)) throw inUse(path, holder);
  const aside = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (thrown) {
    if (isCode(thrown, "ENOENT")) return;
    throw thrown;
  }
  if (readFileSync(aside, "utf8") !== judged) link(aside, path);
  rmSync(aside, { force: true });
}

function readOwner(text: string): Owner | null {
  try {
    return owner.parse(JSON.parse(text));
  } catch {
    // Not written by a gateway, or damaged: nobody can be shown to hold it.
    return null;
  }
}

function isAlive(holder: Owner): boolean {
  if (holder.pid === process.pid) return holder.started === startOf(process.pid);
  try {
    process.kill(holder.pid, 0);
  } catch (thrown) {
    // EPERM: it lives and belongs to another user.
    if (!isCode(thrown, "EPERM")) return false;
  }
  return holder.started === null || holder.started === startOf(holder.pid);
}

/**
 * Tells a process from a later one with the same number: the system's boot and the process's start, as Linux counts
 * them. Null where there is no /proc; the number alone must do there.
 */
function startOf(pid: number): string | null {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may hold spaces; after it come the state and, as the 20th field, the start time.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, start] = [fields[0], fields[19]];
    // A zombie holds nothing any more; in a container whose first process does not reap it may stay for ever.
    return start === undefined || state === "Z" ? null : `${boot}:${start}`;
  } catch (thrown) {
    if (isCode(thrown, "ENOENT") || isCode(thrown, "ESRCH")) return null;
    throw thrown;
  }
}

function inUse(path: string, holder: Owner | null): Error {
  const who = holder === null ? "another process" : `process ${holder.pid}`;
  return new Error(`${path}: the database is in use by ${who}; stop it or choose another SLLM_DATA_DIR.`);
}

function isCode(thrown: unknown, code: string): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === code;
}
