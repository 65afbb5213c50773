/** Names of this worker: one that its data folder keeps over restarts, and one per process. */
import { randomBytes } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { type WorkerId, workerId } from "../../schema/ids.ts";

/**
 * The worker id kept in `<data_dir>/worker/id`, drawn at the first start. The file appears whole or not at all, and
 * of two first starts at once one wins for both. Later starts only read, so that a read-only folder will do. Throws
 * when the file holds something else.
 */
export async function keepWorkerId(data_dir: string): Promise<WorkerId> {
  const folder = path.join(data_dir, "worker");
  const file = path.join(folder, "id");
  const kept = await readFile(file, "utf8").catch(nothingYet);
  const text = kept ?? (await drawWorkerId(folder, file));
  const parsed = workerId.safeParse(text.trim());
  if (!parsed.success) throw new Error(`${file} does not hold a worker id; remove it to draw a new one`);
  return parsed.data;
}

/** The id in the file afterwards: of this process or of the one that was faster. */
async function drawWorkerId(folder: string, file: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const draft = path.join(folder, `id.${randomBytes(4).toString("hex")}`);
  await writeFile(draft, `w-${randomBytes(8).toString("hex")}\n`);
  try {
    // Unlike a rename, a link fails when there is an id already.
    await link(draft, file);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  } finally {
    await rm(draft);
  }
  return await readFile(file, "utf8");
}

function nothingYet(error: unknown): null {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
  throw error;
}

/** Drawn anew for every process: tells gateways that nothing of the one before is left. */
export function newIncarnation(): string {
  return randomBytes(8).toString("hex");
}
