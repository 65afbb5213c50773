/** Embedded databases for tests: making one anew takes seconds, so one is made, kept and copied. */
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { openEmbeddedDatabase } from "../../gateway/main/embedded-database.ts";
import { migrate } from "../../gateway/main/migrate.ts";
import { migrations } from "../../gateway/main/migrations.ts";

const cache = path.resolve(import.meta.dir, "../.cache/embedded-database");

/** A data folder that holds a migrated, empty database; the caller removes it. */
export async function makeDataFolder(): Promise<string> {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-data-"));
  await fillDataFolder(folder);
  return folder;
}

/** Puts a migrated, empty database into a data folder, which is made if it is not there. */
export async function fillDataFolder(folder: string): Promise<void> {
  cpSync(await migratedTemplate(), folder, { recursive: true });
}

async function migratedTemplate(): Promise<string> {
  const hash = createHash("sha256")
    .update(JSON.stringify(migrations))
    .update(await pgliteVersion());
  const template = path.join(cache, hash.digest("hex").slice(0, 16));
  if (existsSync(template)) return template;
  mkdirSync(cache, { recursive: true });
  const draft = mkdtempSync(path.join(cache, "draft-"));
  try {
    const database = await openEmbeddedDatabase(draft);
    try {
      await migrate(database.db);
    } finally {
      await database.close(1_000);
    }
    // Whole or not at all; another run may have been faster.
    if (!existsSync(template)) renameSync(draft, template);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return template;
}

async function pgliteVersion(): Promise<string> {
  const file = Bun.resolveSync("@electric-sql/pglite", import.meta.dir);
  const { version } = await Bun.file(path.join(path.dirname(file), "../package.json")).json();
  return String(version);
}
