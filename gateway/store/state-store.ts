/** The StateStore of the gateway's ports on a database; every operation is one transaction. */
import { sql } from "drizzle-orm";
import type { Clock, StateStore } from "../ports.ts";
import { addAdapter, removeAdapter } from "./adapters.ts";
import type { Database, Db } from "./database.ts";
import { listEstimates, recordEstimates } from "./estimates.ts";
import { listEvents } from "./events.ts";
import { callDatabase } from "./failures.ts";
import {
  appendTokens,
  beginGeneration,
  claimGeneration,
  findKey,
  getStored,
  unfinishedOfOthers,
} from "./generation-records.ts";
import { getGeneration, insertGenerations, moveGenerations } from "./generations.ts";
import { createInstance, endedInstances, moveInstance, touchInstance } from "./instances.ts";
import { holdLease, releaseLease } from "./leases.ts";
import { createMigration, listMigrations, moveMigration } from "./migrations.ts";
import { deleteModel, deployModel, getModel, listModels, purgeModel } from "./models.ts";
import { forget } from "./retention.ts";
import { changes, snapshot } from "./snapshot.ts";
import { expireWorkers, heartbeat, registerWorker } from "./workers.ts";

/** The database stays the caller's to close. The clock only measures how long it takes to answer. */
export function createStateStore(database: Database, clock: Clock): StateStore {
  const run = <T>(operation: (db: Db) => Promise<T>): Promise<T> =>
    callDatabase(clock, () => operation(database.db));
  return {
    ping: () =>
      run(async (db) => {
        await db.execute(sql`select 1`);
      }),
    deployModel: (request, resolved) => run((db) => deployModel(db, request, resolved)),
    deleteModel: (model_id) => run((db) => deleteModel(db, model_id)),
    purgeModel: (model_id) => run((db) => purgeModel(db, model_id)),
    getModel: (model_id) => run((db) => getModel(db, model_id)),
    listModels: () => run(listModels),
    addAdapter: (adapter) => run((db) => addAdapter(db, adapter)),
    removeAdapter: (model_id, name) => run((db) => removeAdapter(db, model_id, name)),
    registerWorker: (report) => run((db) => registerWorker(db, report)),
    heartbeat: (report) => run((db) => heartbeat(db, report)),
    expireWorkers: (silent) => run((db) => expireWorkers(db, silent)),
    snapshot: () => run(snapshot),
    changes: (since) => run((db) => changes(db, since)),
    holdLease: (name, holder, seen) => run((db) => holdLease(db, name, holder, seen)),
    releaseLease: (lease) => run((db) => releaseLease(db, lease)),
    createInstance: (instance) => run((db) => createInstance(db, instance)),
    moveInstance: (move) => run((db) => moveInstance(db, move)),
    touchInstance: (instance_id, idle_ms) => run((db) => touchInstance(db, instance_id, idle_ms)),
    endedInstances: (limit) => run((db) => endedInstances(db, limit)),
    insertGenerations: (begun) => run((db) => insertGenerations(db, begun)),
    moveGenerations: (moves) => run((db) => moveGenerations(db, moves)),
    getGeneration: (generation_id) => run((db) => getGeneration(db, generation_id)),
    beginGeneration: (request) => run((db) => beginGeneration(db, request)),
    claimGeneration: (claim) => run((db) => claimGeneration(db, claim)),
    appendTokens: (batches) => run((db) => appendTokens(db, batches)),
    getStored: (generation_id) => run((db) => getStored(db, generation_id)),
    findKey: (tenant, key) => run((db) => findKey(db, tenant, key)),
    unfinishedOfOthers: (alive, limit) => run((db) => unfinishedOfOthers(db, alive, limit)),
    createMigration: (migration) => run((db) => createMigration(db, migration)),
    moveMigration: (move) => run((db) => moveMigration(db, move)),
    listMigrations: (filter) => run((db) => listMigrations(db, filter)),
    recordEstimates: (observed) => run((db) => recordEstimates(db, observed)),
    estimates: () => run(listEstimates),
    forget: (retention) => run((db) => forget(db, retention)),
    listEvents: (filter) => run((db) => listEvents(db, filter)),
  };
}
