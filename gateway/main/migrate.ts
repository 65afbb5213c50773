/** Brings a database to the tables of this version, or says what keeps it from them and what to do about it. */
import { sql } from "drizzle-orm";
import { SllmError } from "../../schema/error.ts";
import { toHex } from "../../schema/ids.ts";
import type { Db } from "../store/database.ts";
import { type Migration, migrations } from "./migrations.ts";

/** Any number, the same in all versions: serialises gateways that start at once. */
const lockKey = 0x736c6c6d;

/**
 * Makes the database fit this version, or with `check` only looks whether it does. Returns the names of the migrations
 * that were applied. Throws `migrations_missing`, with the way to apply them, when they may not or cannot be.
 */
export async function prepareDatabase(db: Db, mode: "apply" | "check"): Promise<string[]> {
  if (mode === "check") {
    const missing = await missingMigrations(db);
    if (missing.length > 0)
      throw notApplied(missing, "gateway.migrations is 'check', so this gateway applies none");
    return [];
  }
  try {
    return await migrate(db);
  } catch (error) {
    if (!mayNotChange(error)) throw error;
    const missing = await missingMigrations(db);
    throw notApplied(missing, "this database user may not create tables", error);
  }
}

function notApplied(missing: readonly string[], why: string, cause?: unknown): SllmError {
  const message =
    `The database lacks migrations (${missing.join(", ")}), and ${why}. Apply them by 'sllm migrate --database-url ` +
    "<url>' as a user who may create tables, or start one gateway as such with SLLM_GATEWAY_MIGRATIONS=apply.";
  return new SllmError("migrations_missing", message, { cause });
}

/** Insufficient privilege, as the driver says it; Drizzle wraps what the driver throws. */
function mayNotChange(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ("code" in at && at.code === "42501") return true;
  }
  return false;
}

/** Names of the migrations that the database has not seen, in their order. Changes nothing. */
async function missingMigrations(db: Db): Promise<string[]> {
  const [table] = await db.execute<{ is_there: boolean }>(
    sql`select to_regclass('schema_migrations') is not null as is_there`,
  );
  const rows =
    table?.is_there === true
      ? await db.execute<{ name: string }>(sql`select name from schema_migrations`)
      : [];
  const applied = new Set(rows.map((row) => row.name));
  return migrations.map(({ name }) => name).filter((name) => !applied.has(name));
}

/**
 * Runs the migrations that the database has not seen, all in one transaction, and returns their names. Throws when
 * the database was migrated by a newer version or by migrations of other content.
 */
export async function migrate(db: Db, known: readonly Migration[] = migrations): Promise<string[]> {
  return await db.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(${lockKey})`);
    await tx.execute(sql`
      create table if not exists schema_migrations (
        name text primary key,
        sha256 text not null,
        applied_at timestamptz not null default now()
      )`);
    const rows = await tx.execute<{ name: string; sha256: string }>(
      sql`select name, sha256 from schema_migrations`,
    );
    const applied = new Map(rows.map((row) => [row.name, row.sha256]));
    const run: string[] = [];
    for (const migration of known) {
      const sha256 = await digest(migration.sql);
      const before = applied.get(migration.name);
      applied.delete(migration.name);
      if (before === sha256) continue;
      if (before !== undefined) throw unfit(`its migration '${migration.name}' differs from ours`);
      for (const statement of migration.sql.split("--> statement-breakpoint")) {
        await tx.execute(sql.raw(statement));
      }
      await tx.execute(
        sql`insert into schema_migrations (name, sha256) values (${migration.name}, ${sha256})`,
      );
      run.push(migration.name);
    }
    const [newer] = applied.keys();
    if (newer !== undefined) throw unfit(`it has the migration '${newer}' of a newer version`);
    return run;
  });
}

function unfit(why: string): SllmError {
  return new SllmError("state_unavailable", `The database does not fit this version of the gateway: ${why}.`);
}

async function digest(text: string): Promise<string> {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return toHex(new Uint8Array(bytes));
}
