/**
 * The lock file of a data folder: one `sllm up` at a time. It names its owner by process id, that process's start
 * time and the machine's boot, so that a file left behind by a crash is never mistaken for a running owner.
 */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CommandFailure } from "../failure.ts";

const lockOwner = z.object({
  pid: z.number().int().positive(),
  /** Start of the process in clock ticks since boot, as /proc tells it: ids are used again, this pair is not. */
  start_ticks: z.string(),
  boot_id: z.string(),
  /** Address of the gateway once it is ready. */
  url: z.string().nullable(),
});
type LockOwner = z.infer<typeof lockOwner>;

export interface Lock {
  /** Writes down the gateway's address for other commands. */
  announce(url: string): void;
  /** Removes the file. May be called again. */
  release(): void;
}

/** Takes the lock of the folder, which must exist. Throws CommandFailure when a running process holds it. */
export function takeLock(data_dir: string): Lock {
  const path = lockPath(data_dir);
  const own: LockOwner = { ...identityOf(process.pid), url: null };
  const draft = `${path}.${process.pid}`;
  const write = (owner: LockOwner) => writeFileSync(draft, `${JSON.stringify(owner)}\n`, { mode: 0o600 });
  write(own);
  try {
    if (!tryLink(draft, path)) {
      removeStale(data_dir, `${draft}.stale`);
      if (!tryLink(draft, path)) throw alreadyRunning(data_dir);
    }
  } finally {
    rmSync(draft, { force: true });
  }
  let isHeld = true;
  return {
    announce: (url) => {
      write({ ...own, url });
      renameSync(draft, path);
    },
    release: () => {
      if (isHeld) rmSync(path, { force: true });
      isHeld = false;
    },
  };
}

/** The owner of the folder's lock, and whether it still runs; null without a lock file. */
export function readLock(data_dir: string): { readonly owner: LockOwner; readonly isAlive: boolean } | null {
  const owner = readOwner(lockPath(data_dir));
  return owner === null ? null : { owner, isAlive: isAlive(owner) };
}

/**
 * Moves a lock without a living owner out of the way. The file is renamed before it is judged: of two processes
 * that find the same dead lock, one gets the file and the other nothing.
 */
function removeStale(data_dir: string, aside: string): void {
  const path = lockPath(data_dir);
  if (readLock(data_dir)?.isAlive === true) throw alreadyRunning(data_dir);
  try {
    renameSync(path, aside);
  } catch (error) {
    if (isCode(error, "ENOENT")) return; // its owner released it meanwhile
    throw error;
  }
  const owner = readOwner(aside);
  const tookLiving = owner !== null && isAlive(owner);
  if (tookLiving) tryLink(aside, path); // somebody locked between our look and the rename: give it back
  rmSync(aside, { force: true });
  if (tookLiving) throw alreadyRunning(data_dir);
}

function alreadyRunning(data_dir: string): CommandFailure {
  const owner = readOwner(lockPath(data_dir));
  const who = owner === null ? "another process" : `process ${owner.pid}`;
  const where = owner?.url == null ? "" : ` at ${owner.url}`;
  return new CommandFailure(`sllm is already running${where} (${who}) with the data folder ${data_dir}`, {
    advice: `Stop it first${owner === null ? "" : ` (kill ${owner.pid})`}, or give this one another --data-dir and --port.`,
  });
}

function lockPath(data_dir: string): string {
  return join(data_dir, "lock");
}

/** link() takes a whole file into place or fails: nobody ever reads half a lock. */
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (isCode(error, "EEXIST")) return false;
    throw error;
  }
}

function readOwner(path: string): LockOwner | null {
  try {
    return lockOwner.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch {
    return null; // gone, or damaged by a full disk: either way it names no owner
  }
}

function isAlive(owner: LockOwner): boolean {
  try {
    const now = identityOf(owner.pid);
    return now.boot_id === owner.boot_id && now.start_ticks === owner.start_ticks;
  } catch {
    return false; // no such process any more
  }
}

function identityOf(pid: number): { pid: number; start_ticks: string; boot_id: string } {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may hold spaces; after it come the state and, as the 20th field, the start time.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie holds nothing any more; in a container whose first process does not reap it may stay for ever.
  if (fields[0] === "Z") throw new Error(`process ${pid} has ended`);
  const boot_id = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return { pid, start_ticks: fields[19] ?? "", boot_id };
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
