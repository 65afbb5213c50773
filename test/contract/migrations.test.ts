/** The committed migrations: they make the tables that the code declares, once, whoever else is starting. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { sql } from "drizzle-orm";
import { migrate } from "../../gateway/main/migrate.ts";
import { migrations } from "../../gateway/main/migrations.ts";
import { type Database, openDatabase } from "../../gateway/store/database.ts";
import { createDatabase, type PostgresServer, startPostgres } from "../support/postgres.ts";

const repositoryRoot = path.resolve(import.meta.dir, "../..");
const folder = path.join(repositoryRoot, "schema/db/migrations");

test("the bundled list names the journal's migrations, in its order", () => {
  const journal = JSON.parse(readFileSync(path.join(folder, "meta/_journal.json"), "utf8"));
  expect(migrations.map((migration) => migration.name)).toEqual(
    journal.entries.map((entry: { tag: string }) => entry.tag),
  );
  for (const { name, sql: text } of migrations) {
    expect(text).toBe(readFileSync(path.join(folder, `${name}.sql`), "utf8"));
  }
});

test("tables.ts holds nothing that no migration makes", () => {
  const copy = mkdtempSync(path.join(tmpdir(), "sllm-migrations-"));
  try {
    cpSync(folder, copy, { recursive: true });
    // drizzle-kit takes the folder relative to where it runs.
    const out = path.relative(repositoryRoot, copy);
    const schema = "schema/db/tables.ts";
    const kit = path.join(repositoryRoot, "node_modules/drizzle-kit/bin.cjs");
    const options = [
      "generate",
      "--dialect",
      "postgresql",
      "--schema",
      schema,
      "--out",
      out,
      "--name",
      "difference",
    ];
    const result = spawnSync(process.execPath, [kit, ...options], { cwd: repositoryRoot, encoding: "utf8" });
    expect(result.stdout + result.stderr).toContain("No schema changes");
    expect(readdirSync(copy).filter((file) => file.includes("difference"))).toEqual([]);
  } finally {
    rmSync(copy, { recursive: true });
  }
}, 60_000);

describe("migrate", () => {
  let server: PostgresServer;
  const opened: { database: Database; drop: () => Promise<void> }[] = [];

  beforeAll(async () => {
    server = await startPostgres();
  }, 60_000);
  afterAll(async () => {
    for (const { database, drop } of opened) {
      await database.close(1_000);
      await drop();
    }
    await server.stop();
  });

  const emptyDatabase = async () => {
    const { url, drop } = await createDatabase(server);
    const database = openDatabase(url, { max: 8 });
    opened.push({ database, drop });
    return database;
  };
  const ours = migrations.map((migration) => migration.name);
  const next = {
    name: "9999_next",
    sql: "create table next_one (id int);--> statement-breakpoint\ninsert into next_one values (1)",
  };

  test("runs what is missing, in order, once", async () => {
    const { db } = await emptyDatabase();
    expect(await migrate(db)).toEqual(ours);
    expect(await migrate(db)).toEqual([]);
    expect(await migrate(db, [...migrations, next])).toEqual(["9999_next"]);
    expect(await migrate(db, [...migrations, next])).toEqual([]);
    expect(await db.execute(sql`select * from next_one`)).toMatchObject([{ id: 1 }]);
  });

  test("lets one of many gateways that start at once do the work", async () => {
    const { db } = await emptyDatabase();
    const runs = await Promise.all(Array.from({ length: 8 }, () => migrate(db)));
    expect(runs.filter((names) => names.length > 0)).toEqual([ours]);
  });

  test("leaves the database as it was when one fails", async () => {
    const { db } = await emptyDatabase();
    const broken = {
      name: "9999_broken",
      sql: "create table half (id int);--> statement-breakpoint\nno sql",
    };
    await expect(migrate(db, [...migrations, broken])).rejects.toThrow();
    const tables = await db.execute(sql`select tablename from pg_tables where schemaname = 'public'`);
    expect(tables).toHaveLength(0);
    expect(await migrate(db)).toEqual(ours);
  });

  test("refuses a database of a newer version and one with other migrations", async () => {
    const { db } = await emptyDatabase();
    await migrate(db, [...migrations, next]);
    await expect(migrate(db)).rejects.toMatchObject({
      code: "state_unavailable",
      message: expect.stringContaining("'9999_next' of a newer version"),
    });
    await expect(migrate(db, [...migrations, { ...next, sql: "select 1" }])).rejects.toMatchObject({
      message: expect.stringContaining("'9999_next' differs"),
    });
  });
});
