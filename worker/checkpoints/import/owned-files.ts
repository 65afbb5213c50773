/**
 * Small files in a store that belong to one process and mean something while it lives: room that it has reserved
 * (`.reserved-<owner>-<bytes>`) and checkpoints that it uses (`.using-<owner>-<digest>`). Name and content are one, so a
 * file is there whole or not at all; what a killed process left counts for nothing and is swept by the next one.
 */
import { open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isAbandoned, ownerMark } from "./incoming.ts";

export type OwnedKind = "reserved" | "using";

export interface OwnedFile {
  readonly name: string;
  /** Mark of host, process and file. */
  readonly owner: string;
  /** Bytes of a reservation, digest of a use. */
  readonly payload: string;
}

/** What a file's time may be behind the clock: they move in ticks of the kernel, of 10 ms at most. */
export const fileTickMs = 12;

const pattern = /^\.(reserved|using)-([0-9a-f]{12}-\d+-\d+-[0-9a-f]{12})-([0-9a-f]+)$/;

/** Makes a file of this process, under an own mark if none is given; the caller removes it. */
export async function createOwned(
  storeDir: string,
  kind: OwnedKind,
  payload: string,
  mark?: string,
): Promise<OwnedFile> {
  const owner = mark ?? (await ownerMark());
  const name = `.${kind}-${owner}-${payload}`;
  await (await open(join(storeDir, name), "wx")).close();
  return { name, owner, payload };
}

export async function removeOwned(storeDir: string, { name }: OwnedFile): Promise<void> {
  await rm(join(storeDir, name), { force: true });
}

/** Files of this kind whose owners live. */
export async function listOwned(storeDir: string, kind: OwnedKind): Promise<OwnedFile[]> {
  const found: OwnedFile[] = [];
  for (const name of await readdir(storeDir)) {
    const [, of, owner = "", payload = ""] = pattern.exec(name) ?? [];
    if (of === kind && !(await isAbandoned(owner, join(storeDir, name))))
      found.push({ name, owner, payload });
  }
  return found;
}

/** Removes files whose owners are gone. */
export async function sweepOwned(storeDir: string): Promise<void> {
  for (const name of await readdir(storeDir)) {
    const owner = pattern.exec(name)?.[2];
    const path = join(storeDir, name);
    if (owner !== undefined && (await isAbandoned(owner, path))) await rm(path, { force: true });
  }
}

/** When the file was made, by the store's own clock; null when it is gone. */
export async function madeAtMs(storeDir: string, { name }: OwnedFile): Promise<number | null> {
  return await stat(join(storeDir, name)).then(
    ({ mtimeMs }) => mtimeMs,
    () => null,
  );
}
