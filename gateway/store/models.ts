/** Deployments and the checkpoints they name. Changed rarely: ordinary transactions, written to be read. */
import { eq, sql } from "drizzle-orm";
import type { DeployRequest } from "../../schema/api/admin.ts";
import {
  type CheckpointRow,
  checkpoints,
  events,
  type ModelRow,
  models,
  thisTransaction,
} from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { refuseAdapterId, refuseOrphans } from "./adapters.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";

type Transaction = Parameters<Parameters<Db["transaction"]>[0]>[0];
type DeployedModel = { model: ModelRow; checkpoint: CheckpointRow };

/** Inserts model and checkpoint, or takes an existing model over. Throws `model_exists`; then nothing has changed. */
export async function deployModel(
  db: Db,
  request: DeployRequest,
  resolved: { context_tokens: number; keep_alive_ms: number },
): Promise<ModelRow> {
  const settings = {
    state: "active",
    checkpoint: request.manifest.digest,
    context_tokens: resolved.context_tokens,
    slots: request.settings.slots,
    kv_tokens: request.settings.kv_tokens ?? null,
    deterministic: request.settings.deterministic ?? false,
    keep_alive_ms: resolved.keep_alive_ms,
    ...scalingOf(request.settings),
  } as const;
  return await db.transaction(async (tx) => {
    await refuseAdapterId(tx, request.id);
    await insertCheckpoint(tx, request);
    const [created] = await tx
      .insert(models)
      .values({ model_id: request.id, ...settings })
      .onConflictDoNothing()
      .returning();
    if (created !== undefined) {
      await tx
        .insert(events)
        .values({ entity: "model", entity_id: request.id, to_state: "active", reason: "deployed" });
      return created;
    }
    if (!request.replace) {
      throw new SllmError("model_exists", `A model named '${request.id}' exists already.`, { param: "id" });
    }
    return await replaceModel(tx, request.id, settings);
  });
}

/** As the row holds it: what is left out by its default. */
export function scalingOf(settings: DeployRequest["settings"]) {
  return {
    min_instances: settings.min_instances ?? 0,
    max_instances: settings.max_instances ?? null,
    target_concurrency: settings.target_concurrency ?? null,
    queue_delay_ms: settings.queue_delay_ms ?? limits.queue_delay_ms,
    preload: settings.preload ?? false,
  } as const;
}

async function insertCheckpoint(tx: Transaction, request: DeployRequest): Promise<void> {
  const { manifest } = request;
  const added = await tx
    .insert(checkpoints)
    .values({ digest: manifest.digest, manifest })
    .onConflictDoNothing()
    .returning({ digest: checkpoints.digest });
  if (added.length === 0) return;
  await tx
    .insert(events)
    .values({ entity: "checkpoint", entity_id: manifest.digest, to_state: "known", reason: "deployed" });
}

async function replaceModel(
  tx: Transaction,
  model_id: string,
  settings: Omit<typeof models.$inferInsert, "model_id">,
): Promise<ModelRow> {
  const [before] = await tx
    .select({ state: models.state, checkpoint: models.checkpoint })
    .from(models)
    .where(eq(models.model_id, model_id))
    .for("update");
  if (before === undefined) {
    throw new SllmError("state_conflict", `The model '${model_id}' was just removed.`);
  }
  if (before.checkpoint !== settings.checkpoint || settings.deterministic === true) {
    await refuseOrphans(tx, model_id);
  }
  const written = { ...settings, changed_tx: thisTransaction };
  const [replaced] = await tx.update(models).set(written).where(eq(models.model_id, model_id)).returning();
  if (replaced === undefined) throw new Error("a locked row has vanished");
  await tx.insert(events).values({
    entity: "model",
    entity_id: model_id,
    from_state: before.state,
    to_state: settings.state,
    reason: "replaced",
  });
  return replaced;
}

/** Marks a model deleting; false when there is none. Saying it again changes nothing. */
export async function deleteModel(db: Db, model_id: string): Promise<boolean> {
  const rows = await db.execute(sql`
    with before as (
      select model_id, state from models where model_id = ${model_id} for update
    ), marked as (
      update models m set state = 'deleting', changed_tx = ${thisTransaction}
      from before b where m.model_id = b.model_id and b.state = 'active'
      returning m.model_id as entity_id, b.state as from_state, m.state as to_state, 'deleted' as reason
    ), logged as (${logEvents("model", sql`marked`)})
    select model_id from before`);
  return rows.length > 0;
}

/** Removes a deleting model that has no live instance; no new one can come, since only active models get any. */
export async function purgeModel(db: Db, model_id: string): Promise<boolean> {
  const rows = await db.execute(sql`
    with purged as (
      delete from models m
      where m.model_id = ${model_id} and m.state = 'deleting' and not exists (
        select 1 from instances where model_id = ${model_id} and state not in ('gone', 'failed')
      )
      returning m.model_id as entity_id, m.state as from_state, 'removed' as to_state, 'purged' as reason
    ), logged as (${logEvents("model", sql`purged`)})
    select entity_id from purged`);
  return rows.length > 0;
}

const deployed = { model: models, checkpoint: checkpoints };

export async function getModel(db: Db, model_id: string): Promise<DeployedModel | null> {
  const [row] = await db
    .select(deployed)
    .from(models)
    .innerJoin(checkpoints, eq(models.checkpoint, checkpoints.digest))
    .where(eq(models.model_id, model_id));
  return row ?? null;
}

/** By name. */
export async function listModels(db: Db): Promise<DeployedModel[]> {
  return await db
    .select(deployed)
    .from(models)
    .innerJoin(checkpoints, eq(models.checkpoint, checkpoints.digest))
    .orderBy(models.model_id);
}
