/** Leases of gateways. A write takes place only if the row still is as the caller saw it: of two callers one wins. */
import { sql } from "drizzle-orm";
import { type LeaseRow, leases } from "../../schema/db/tables.ts";
import type { Db } from "./database.ts";
import { type RawRow, rowReader } from "./rows.ts";

const readLease = rowReader(leases);

/** Takes, keeps or takes over; a new holder begins a new epoch. null when the row is not as it was seen. */
export async function holdLease(
  db: Db,
  name: string,
  holder: string,
  seen: LeaseRow | null,
): Promise<LeaseRow | null> {
  const [row] = await db.execute<RawRow>(
    seen === null
      ? sql`
        insert into leases (name, holder, epoch, beat) values (${name}, ${holder}, 1, 1)
        on conflict do nothing returning *`
      : sql`
        update leases set holder = ${holder}, beat = beat + 1, renewed_at = now(),
          epoch = case when holder = ${holder} then epoch else epoch + 1 end
        where name = ${name} and epoch = ${seen.epoch} and beat = ${seen.beat}
        returning *`,
  );
  return row === undefined ? null : readLease(row);
}

/** Leaves the lease to whoever comes next. */
export async function releaseLease(db: Db, { name, holder, epoch }: LeaseRow): Promise<void> {
  await db.execute(sql`
    update leases set holder = '', beat = beat + 1, renewed_at = now()
    where name = ${name} and holder = ${holder} and epoch = ${epoch}`);
}
