/** LoRA adapters of deployed models. Changed rarely: ordinary transactions, each under the lock of the model's row. */
import { and, count, eq } from "drizzle-orm";
import { type AdapterRow, adapters, events, models, thisTransaction } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import { formatAdapterId, parseAdapterId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { NewAdapter } from "../ports.ts";
import type { Db } from "./database.ts";

type Transaction = Parameters<Parameters<Db["transaction"]>[0]>[0];

/**
 * Gives a model an adapter. Errors: `model_not_found`, `state_conflict` when the model has another checkpoint by now,
 * `adapter_exists` unless it may be replaced, `model_exists` when a model has the adapter's id, `overloaded`.
 */
export async function addAdapter(db: Db, wanted: NewAdapter): Promise<AdapterRow> {
  const { model_id, name, base: _, replace, ...fields } = wanted;
  const id = formatAdapterId(model_id, name);
  return await db.transaction(async (tx) => {
    const [model] = await tx.select().from(models).where(eq(models.model_id, model_id)).for("update");
    checkBase(model, wanted);
    const [namesake] = await tx.select({ id: models.model_id }).from(models).where(eq(models.model_id, id));
    if (namesake !== undefined) throw nameIsTaken(id);
    const key = and(eq(adapters.model_id, model_id), eq(adapters.name, name));
    const [before] = await tx.select().from(adapters).where(key);
    if (before !== undefined && !replace) throw adapterExists(id);
    if (before === undefined) await checkCount(tx, model_id);
    const [row] =
      before === undefined
        ? await tx
            .insert(adapters)
            .values({ model_id, name, ...fields })
            .returning()
        : await tx.update(adapters).set(fields).where(key).returning();
    if (row === undefined) throw new Error("a row that was written has vanished");
    await noteChange(tx, model_id);
    const reason = before === undefined ? "added" : "replaced";
    const from_state = before === undefined ? null : "active";
    await tx
      .insert(events)
      .values({ entity: "adapter", entity_id: id, from_state, to_state: "active", reason });
    return row;
  });
}

/** A model's adapters are read with its row: without a change there nobody would look. */
async function noteChange(tx: Transaction, model_id: string): Promise<void> {
  await tx.update(models).set({ changed_tx: thisTransaction }).where(eq(models.model_id, model_id));
}

async function checkCount(tx: Transaction, model_id: string): Promise<void> {
  const [found] = await tx.select({ n: count() }).from(adapters).where(eq(adapters.model_id, model_id));
  if ((found?.n ?? 0) >= limits.model_adapters) throw tooManyAdapters(model_id);
}

/** False when there is none. Requests that run with it go on to their end. */
export async function removeAdapter(db: Db, model_id: string, name: string): Promise<boolean> {
  return await db.transaction(async (tx) => {
    // The model first, as everywhere.
    await noteChange(tx, model_id);
    const removed = await tx
      .delete(adapters)
      .where(and(eq(adapters.model_id, model_id), eq(adapters.name, name)))
      .returning({ name: adapters.name });
    if (removed.length === 0) return false;
    await tx.insert(events).values({
      entity: "adapter",
      entity_id: formatAdapterId(model_id, name),
      from_state: "active",
      to_state: "removed",
      reason: "removed",
    });
    return true;
  });
}

/** Throws `model_exists` when an adapter has the id that a model is to have. */
export async function refuseAdapterId(tx: Transaction, model_id: string): Promise<void> {
  const named = parseAdapterId(model_id);
  if (named === null) return;
  const [taken] = await tx
    .select({ name: adapters.name })
    .from(adapters)
    .where(and(eq(adapters.model_id, named.model_id), eq(adapters.name, named.name)));
  if (taken !== undefined) throw nameIsTaken(model_id);
}

/** Throws `state_conflict` when a model has adapters, which a new checkpoint or mode would leave without their base. */
export async function refuseOrphans(tx: Transaction, model_id: string): Promise<void> {
  const [found] = await tx.select({ n: count() }).from(adapters).where(eq(adapters.model_id, model_id));
  if ((found?.n ?? 0) > 0) throw wouldOrphan(model_id, found?.n ?? 0);
}

interface Base {
  readonly state: string;
  readonly checkpoint: string;
}

/** Throws where the adapter was not checked against what the model is now. */
export function checkBase(model: Base | undefined, { model_id, base }: NewAdapter): void {
  if (model?.state !== "active") {
    throw new SllmError("model_not_found", `The model '${model_id}' is not deployed.`, { param: "model" });
  }
  if (model.checkpoint !== base) {
    throw new SllmError("state_conflict", `The model '${model_id}' was just replaced by another one.`);
  }
}

export function nameIsTaken(id: string): SllmError {
  return new SllmError("model_exists", `'${id}' names a model or an adapter already.`, { param: "name" });
}

export function adapterExists(id: string): SllmError {
  return new SllmError("adapter_exists", `An adapter '${id}' exists already.`, { param: "name" });
}

export function tooManyAdapters(model_id: string): SllmError {
  return new SllmError(
    "overloaded",
    `The model '${model_id}' has ${limits.model_adapters} adapters already.`,
  );
}

export function wouldOrphan(model_id: string, n: number): SllmError {
  const message = `The model '${model_id}' has ${n} adapters, which need it as it is: remove them first.`;
  return new SllmError("state_conflict", message);
}
