/**
 * Temporary folders of a checkpoint store. A conversion works in `.incoming-<host>-<pid>-<start>-<random>`: the name
 * tells whether its owner still lives, so leftovers of crashed conversions are found and removed by the next one.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { limits } from "../../../schema/limits.ts";

const incomingName = /^\.incoming-([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{12}$/;

/** True for the name of a temporary folder. */
export function isIncoming(name: string): boolean {
  return incomingName.test(name);
}

/** Makes a temporary folder of this process in the store, which is made if it is missing. */
export async function createIncoming(storeDir: string): Promise<string> {
  await mkdir(storeDir, { recursive: true });
  const path = join(storeDir, await incomingFolderName());
  await mkdir(path);
  return path;
}

/** A fresh name that marks a folder as owned by this process. */
export async function incomingFolderName(): Promise<string> {
  return `.incoming-${await ownerMark()}`;
}

/** The mark in the name of a temporary folder. */
export function markOf(incoming: string): string {
  return basename(incoming).slice(".incoming-".length);
}

/** Marks a thing as this process's own: host and boot, process and its start, and a random part. */
export async function ownerMark(): Promise<string> {
  const start = await startTime(process.pid);
  return `${await hostMark()}-${process.pid}-${start ?? 0}-${randomBytes(6).toString("hex")}`;
}

/** True when the owner of what lies at `path` is gone; on a shared disk, other hosts' things go by their age. */
export async function isAbandoned(owner: string, path: string): Promise<boolean> {
  const [host, pid, start] = owner.split("-");
  if (host === (await hostMark())) return String((await startTime(Number(pid))) ?? -1) !== start;
  return Date.now() - (await lastChange(path)) > limits.incoming_abandoned_ms;
}

/** Removes temporary folders whose owner is gone. Folders of other hosts on a shared disk go when they are old. */
export async function sweepIncoming(storeDir: string): Promise<void> {
  for (const name of await readdir(storeDir).catch(() => [] as string[])) {
    const path = join(storeDir, name);
    if (await isLeftover(name, path)) await rm(path, { recursive: true, force: true });
  }
}

async function isLeftover(name: string, path: string): Promise<boolean> {
  return isIncoming(name) && (await isAbandoned(markOf(name), path));
}

async function lastChange(path: string): Promise<number> {
  const names = await readdir(path).catch(() => [] as string[]);
  const paths = [path, ...names.map((name) => join(path, name))];
  const times = await Promise.all(
    paths.map((p) =>
      stat(p).then(
        (s) => s.mtimeMs,
        () => 0,
      ),
    ),
  );
  return Math.max(...times);
}

/** Which machine, boot and container the process numbers belong to. */
async function hostMark(): Promise<string> {
  const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "");
  return createHash("sha256").update(`${hostname()}\n${boot}`).digest("hex").slice(0, 12);
}

/** When a process began, in the kernel's ticks: with the number it names one process. Null when it is gone. */
async function startTime(pid: number): Promise<number | null> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[19] ?? 0);
}

/**
 * Moves a finished folder to its place so that it appears there whole or not at all, also after a power cut. False
 * when a folder is there already and `replace` is not set; nothing has changed then.
 */
export async function publish(
  incoming: string,
  storeDir: string,
  name: string,
  replace: boolean,
): Promise<boolean> {
  const target = join(storeDir, name);
  await syncFolder(incoming);
  if (replace) await setAside(target, storeDir);
  try {
    await rename(incoming, target);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOTEMPTY" || code === "EEXIST") return false;
    throw error;
  }
  await syncFolder(storeDir);
  return true;
}

async function setAside(target: string, storeDir: string): Promise<void> {
  const aside = join(storeDir, await incomingFolderName());
  try {
    await rename(target, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  await rm(aside, { recursive: true, force: true });
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
