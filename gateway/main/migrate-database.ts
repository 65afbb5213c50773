/**
 * Applies the migrations that the configured database lacks, as a program of its own: for database users that gateways
 * themselves do not have. Prints one JSON line with their names; ends with status 1 and the reason when it cannot.
 */
import process from "node:process";
import { openDatabase } from "../store/database.ts";
import { readSettings } from "./compose.ts";
import { openEmbeddedDatabase } from "./embedded-database.ts";
import { prepareDatabase } from "./migrate.ts";

/** How long statements may take to end when all is done. */
const closeMs = 1_000;

async function migrateConfigured(): Promise<string[]> {
  // Nobody is called here: the token that gateways need is none of this program's.
  const settings = readSettings({ SLLM_CLUSTER_TOKEN: "0".repeat(16), ...process.env });
  const { database_url } = settings.gateway;
  const database =
    database_url === "embedded"
      ? await openEmbeddedDatabase(settings.data_dir)
      : openDatabase(database_url, { max: 1 });
  try {
    return await prepareDatabase(database.db, "apply");
  } finally {
    await database.close(closeMs);
  }
}

try {
  const applied = await migrateConfigured();
  process.stdout.write(`${JSON.stringify({ event: "migrated", migrations: applied })}\n`);
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
