/**
 * What a store remembers of its checkpoints beside them, in `.marks/`: pins (`<digest>.pin`), last uses (the time of
 * `<digest>.used`) and which are deployed as each worker heard it last (`deployed-<worker>.json`). Marks outlive the
 * checkpoint's folder, so that mending a damaged one loses none.
 */
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { checkpointDigest } from "../../../schema/ids.ts";
import { isMissing, systemCode, systemFailure } from "./system-failure.ts";

const deployedMark = z.strictObject({
  digests: z.array(checkpointDigest),
  /** Wall time; of checkpoints that came later nobody has said anything. */
  known_at_ms: z.number(),
});
type DeployedMark = z.infer<typeof deployedMark>;

const folderOf = (storeDir: string) => join(storeDir, ".marks");

/** Keeps a checkpoint from being evicted. Errors: those of the file system. */
export async function pin(storeDir: string, digest: string): Promise<void> {
  try {
    await makeFolder(storeDir);
    await (await open(join(folderOf(storeDir), `${digest}.pin`), "a")).close();
  } catch (error) {
    throw systemFailure("Cannot pin in the checkpoint store", error);
  }
}

/** Does nothing to one that is not pinned. */
export async function unpin(storeDir: string, digest: string): Promise<void> {
  try {
    await rm(join(folderOf(storeDir), `${digest}.pin`), { force: true });
  } catch (error) {
    throw systemFailure("Cannot unpin in the checkpoint store", error);
  }
}

export async function isPinned(storeDir: string, digest: string): Promise<boolean> {
  return (await timeOf(join(folderOf(storeDir), `${digest}.pin`))) !== null;
}

/** Notes a use now: one system call once the file is there. */
export async function markUsed(storeDir: string, digest: string): Promise<void> {
  const file = join(folderOf(storeDir), `${digest}.used`);
  const now = new Date();
  try {
    await utimes(file, now, now);
  } catch (error) {
    if (!isMissing(error)) throw error;
    await makeFolder(storeDir);
    await (await open(file, "a")).close();
  }
}

/** Wall time of the last use; null when there was none. */
export async function lastUsedMs(storeDir: string, digest: string): Promise<number | null> {
  return await timeOf(join(folderOf(storeDir), `${digest}.used`));
}

/** Keeps what a worker has heard from its gateway. Appears whole. */
export async function markDeployed(storeDir: string, worker: string, mark: DeployedMark): Promise<void> {
  const file = join(folderOf(storeDir), `deployed-${worker}.json`);
  await makeFolder(storeDir);
  await writeFile(`${file}.new`, JSON.stringify(mark));
  await rename(`${file}.new`, file);
}

/** What is deployed as far as the workers of this store know; null when none has heard from a gateway yet. */
export async function readDeployed(storeDir: string): Promise<DeployedMark | null> {
  const names = await readdir(folderOf(storeDir)).catch(nothing);
  const marks: DeployedMark[] = [];
  for (const name of names.filter((one) => /^deployed-.*\.json$/.test(one))) {
    marks.push(deployedMark.parse(JSON.parse(await readFile(join(folderOf(storeDir), name), "utf8"))));
  }
  if (marks.length === 0) return null;
  return {
    digests: [...new Set(marks.flatMap((mark) => mark.digests))],
    known_at_ms: Math.max(...marks.map((mark) => mark.known_at_ms)),
  };
}

/** A store that is not there (not mounted, say) is not made by a mark. */
async function makeFolder(storeDir: string): Promise<void> {
  await mkdir(folderOf(storeDir)).catch((error: unknown) => {
    if (systemCode(error) !== "EEXIST") throw error;
  });
}

function nothing(error: unknown): string[] {
  if (isMissing(error)) return [];
  throw error;
}

async function timeOf(file: string): Promise<number | null> {
  return await stat(file).then(
    ({ mtimeMs }) => mtimeMs,
    (error) => {
      if (isMissing(error)) return null;
      throw error;
    },
  );
}
