/** The committed migrations: they make the tables that the code declares, once, whoever else is starting. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { sql } from "drizzle-orm";
import { migrate, prepareDatabase } from "../../gateway/main/migrate.ts";
import { migrations } from "../../gateway/main/migrations.ts";
import { type Database, openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
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
  const opened: Database[] = [];
  const drops: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    server = await startPostgres();
  }, 60_000);
  afterAll(async () => {
    for (const database of opened) await database.close(1_000);
    for (const drop of drops) await drop();
    await server.stop();
  });

  const newDatabase = async () => {
    const created = await createDatabase(server);
    drops.push(created.drop);
    return created;
  };
  const emptyDatabase = async () => {
    const { url } = await newDatabase();
    const database = openDatabase(url, { max: 8 });
    opened.push(database);
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

  test("only looks where it shall not apply, and says how to", async () => {
    const { db } = await emptyDatabase();
    const refusal = {
      code: "migrations_missing",
      message: expect.stringContaining("sllm migrate --database-url"),
    };
    await expect(prepareDatabase(db, "check")).rejects.toMatchObject(refusal);
    const named = { message: expect.stringContaining(ours.join(", ")) };
    await expect(prepareDatabase(db, "check")).rejects.toMatchObject(named);
    await migrate(db, migrations.slice(0, -1));
    const last = { message: expect.stringContaining(`lacks migrations (${ours.at(-1)})`) };
    await expect(prepareDatabase(db, "check")).rejects.toMatchObject(last);
    expect(await prepareDatabase(db, "apply")).toEqual(ours.slice(-1));
    expect(await prepareDatabase(db, "check")).toEqual([]);
  });

  test("says how to apply them where the database user may not create tables", async () => {
    const { url } = await newDatabase();
    const role = `reader_${crypto.randomUUID().replaceAll("-", "")}`;
    const owner = openDatabase(url, { max: 1 });
    await owner.db.execute(sql.raw(`create role ${role} login`));
    await owner.db.execute(sql.raw("revoke create on schema public from public"));
    const asReader = new URL(url);
    asReader.username = role;
    const reader = openDatabase(asReader.href, { max: 1 });
    try {
      await expect(prepareDatabase(reader.db, "apply")).rejects.toMatchObject({
        code: "migrations_missing",
        message: expect.stringContaining("this database user may not create tables"),
      });
    } finally {
      await reader.close(1_000);
      await owner.db.execute(sql.raw(`drop role ${role}`));
      await owner.close(1_000);
    }
  });

  test("a store on a database without tables says so by name", async () => {
    const database = await emptyDatabase();
    const store = createStateStore(database, systemClock);
    await expect(store.snapshot()).rejects.toMatchObject({ code: "migrations_missing" });
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
