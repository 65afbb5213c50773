/** The admin API of moves: streams that go from worker to worker, and workers that let all of theirs go. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { generationId, instanceId, migrationId, modelId, workerId } from "../ids.ts";
import { limits } from "../limits.ts";
import { migrationMethods, migrationStates } from "../vocab.ts";

/** POST /admin/v1/generations/{id}/move: to a worker, or to wherever it would be best. Answers 202 with the move. */
export const moveGenerationRequest = z.strictObject({
  worker_id: workerId.optional(),
  /** How what is computed gets there; the one that is expected to be faster if left out. */
  method: z.enum(migrationMethods).optional(),
});

/** A stream that moves, or moved, from worker to worker. */
export const adminMigration = z.object({
  migration_id: migrationId,
  generation_id: generationId,
  model_id: modelId,
  state: z.enum(migrationStates),
  reason: z.string(),
  from_worker_id: workerId,
  to_worker_id: workerId,
  from_instance_id: instanceId,
  to_instance_id: instanceId.nullable(),
  method: z.enum(migrationMethods).nullable(),
  rounds: z.number().int(),
  /** Of prompt and output that the destination has computed or been given. */
  tokens: z.number().int(),
  bytes: z.number().int(),
  /** Of its steps, as far as they are known; `handed_over` is the stream's pause without the next token's own time. */
  timings_ms: z.record(z.string(), z.number()).nullable(),
  error: wireError.nullable(),
  created_at: z.string(),
  ended_at: z.string().nullable(),
});
export type AdminMigration = z.infer<typeof adminMigration>;
export const adminMigrationList = z.object({ data: z.array(adminMigration) });

/** GET /admin/v1/migrations: the newest first. */
export const migrationsQuery = z.strictObject({
  generation_id: generationId.optional(),
  /** 1: only those under way. */
  live: z.literal("1").optional(),
  limit: z.coerce.number().int().min(1).max(limits.listed_migrations).default(100),
});

/** POST /admin/v1/workers/{id}/drain: its streams move to other workers, then it ends. Answers 202. */
export const drainedWorker = z.object({ worker_id: workerId, generations: z.number().int() });
export type DrainedWorker = z.infer<typeof drainedWorker>;
