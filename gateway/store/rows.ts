/** Rows of hand-written statements, turned into the same objects that Drizzle's own queries give. */
import { getTableColumns, type SQL, sql } from "drizzle-orm";
import type { PgTable } from "drizzle-orm/pg-core";

/** A row as the driver or `to_json` gives it: times as text, large integers as text or number. */
export type RawRow = Readonly<Record<string, unknown>>;

/** Makes the reader of a table's raw rows; columns are mapped as the table declares them. */
export function rowReader<T extends PgTable>(table: T): (raw: RawRow) => T["$inferSelect"] {
  const columns = Object.values(getTableColumns(table));
  return (raw) => {
    const row: Record<string, unknown> = {};
    for (const column of columns) {
      const value = raw[column.name];
      row[column.name] = value === null || value === undefined ? null : column.mapFromDriverValue(value);
    }
    return row as T["$inferSelect"];
  };
}

/** A list of values for `in (...)`. Not empty. */
export function listOf(values: readonly string[]): SQL {
  return sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
}
