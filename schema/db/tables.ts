/**
 * The shared state of a cluster. Workers never see it; gateways write it, every change of a state by a guarded
 * update with an `events` row in the same transaction. Byte counts are bigint columns read as numbers (< 2^53).
 * Longer than other files because it is one schema, from which one migration after the other is made.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  bigserial,
  boolean,
  check,
  doublePrecision,
  index,
  integer,
  json,
  jsonb,
  pgEnum,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
} from "drizzle-orm/pg-core";
import type { ExplainedDecision, Timeline } from "../api/admin.ts";
import type { Manifest } from "../checkpoint/manifest.ts";
import type { DoneEvent, GenerationHop, GenerationSettings, TokensEvent } from "../cluster/generate.ts";
import type { LinkReport, StoreProblem } from "../cluster/membership.ts";
import type { ErrorCode } from "../codes.ts";
import { limits } from "../limits.ts";
import {
  deviceKinds,
  estimateQuantities,
  eventEntities,
  finishReasons,
  generationStates,
  instanceStates,
  migrationMethods,
  migrationStates,
  modelStates,
  placementStates,
  tiers,
  workerStates,
} from "../vocab.ts";

export const deviceKindEnum = pgEnum("device_kind", deviceKinds);
export const estimateQuantityEnum = pgEnum("estimate_quantity", estimateQuantities);
export const eventEntityEnum = pgEnum("event_entity", eventEntities);
export const finishReasonEnum = pgEnum("finish_reason", finishReasons);
export const generationStateEnum = pgEnum("generation_state", generationStates);
export const instanceStateEnum = pgEnum("instance_state", instanceStates);
export const migrationMethodEnum = pgEnum("migration_method", migrationMethods);
export const migrationStateEnum = pgEnum("migration_state", migrationStates);
export const modelStateEnum = pgEnum("model_state", modelStates);
export const placementStateEnum = pgEnum("placement_state", placementStates);
export const tierEnum = pgEnum("tier", tiers);
export const workerStateEnum = pgEnum("worker_state", workerStates);

/** Instances that hold memory. Queries must say it in these words for the planner to take the partial indexes. */
const liveInstance = sql`state not in ('gone', 'failed')`;

/** Migrations under way, in the words of the index that lets a generation have one. */
const liveMigration = sql`state not in ('finished', 'dropped', 'failed')`;

const bytes = (name: string) => bigint(name, { mode: "number" });
const at = (name: string) => timestamp(name, { withTimezone: true, mode: "date", precision: 3 });
const createdAt = () => at("created_at").notNull().defaultNow();

/** The transaction that writes, for the columns below. */
export const thisTransaction = sql`pg_current_xact_id()::text::bigint`;

/**
 * The transaction that wrote the row last. Every statement that writes such a row sets it: gateways read what changed
 * since their last read by it.
 */
const writtenIn = (name: string) => bigint(name, { mode: "number" }).notNull().default(thisTransaction);

/** GPU hosts. A worker keeps its id over restarts; `incarnation` tells one process from the next. */
export const workers = pgTable("workers", {
  worker_id: text("worker_id").primaryKey(),
  incarnation: text("incarnation").notNull(),
  state: workerStateEnum("state").notNull(),
  url: text("url").notNull(),
  version: text("version").notNull(),
  /** Of the last heartbeat taken in; -1 between registration and the first one. */
  heartbeat_sequence: bigint("heartbeat_sequence", { mode: "number" }).notNull().default(-1),
  last_heartbeat_at: at("last_heartbeat_at"),
  /** Work queued on the worker's links, and what of its disk cannot be used; of the last report, as it was said. */
  links: json("links").$type<LinkReport[]>().notNull().default([]),
  problems: json("problems").$type<StoreProblem[]>().notNull().default([]),
  created_at: createdAt(),
  changed_tx: writtenIn("changed_tx"),
  /** Of the last change of the worker's devices or placements. */
  holdings_tx: writtenIn("holdings_tx"),
});

/** Memory that instances can book. The check is the last line of defence against booking bytes twice. */
export const devices = pgTable(
  "devices",
  {
    worker_id: text("worker_id")
      .notNull()
      .references(() => workers.worker_id, { onDelete: "cascade" }),
    device_id: text("device_id").notNull(),
    kind: deviceKindEnum("kind").notNull(),
    memory_bytes: bytes("memory_bytes").notNull(),
    reserved_bytes: bytes("reserved_bytes").notNull().default(0),
    /** Engines there hold a repacked copy of the weights beside the weights. */
    repacks: boolean("repacks").notNull().default(false),
  },
  (t) => [
    primaryKey({ columns: [t.worker_id, t.device_id] }),
    check("devices_reserved_fits", sql`${t.reserved_bytes} between 0 and ${t.memory_bytes}`),
  ],
);

/** Content-addressed weights, described by their manifest. */
export const checkpoints = pgTable("checkpoints", {
  digest: text("digest").primaryKey(),
  /** `json`, not `jsonb`: read whole, never searched, and any string that JSON can say is kept (jsonb refuses NUL). */
  manifest: json("manifest").$type<Manifest>().notNull(),
  created_at: createdAt(),
});

/** Deployments: a name, a checkpoint and how to run it. */
export const models = pgTable(
  "models",
  {
    model_id: text("model_id").primaryKey(),
    state: modelStateEnum("state").notNull(),
    checkpoint: text("checkpoint")
      .notNull()
      .references(() => checkpoints.digest),
    context_tokens: integer("context_tokens").notNull(),
    slots: integer("slots").notNull(),
    /** Cells of an instance's KV cache; null: a context for each slot. */
    kv_tokens: integer("kv_tokens"),
    deterministic: boolean("deterministic").notNull().default(false),
    keep_alive_ms: integer("keep_alive_ms").notNull(),
    min_instances: integer("min_instances").notNull().default(0),
    /** null: as many as devices can run it. */
    max_instances: integer("max_instances"),
    /** null: more instances follow from the queue's delay alone. */
    target_concurrency: integer("target_concurrency"),
    queue_delay_ms: integer("queue_delay_ms").notNull().default(limits.queue_delay_ms),
    preload: boolean("preload").notNull().default(false),
    created_at: createdAt(),
    changed_tx: writtenIn("changed_tx"),
  },
  (t) => [
    check(
      "models_settings_valid",
      sql`${t.context_tokens} > 0 and ${t.slots} > 0 and ${t.keep_alive_ms} >= 0`,
    ),
    check(
      "models_scaling_valid",
      sql`${t.min_instances} >= 0 and ${t.max_instances} >= greatest(1, ${t.min_instances})
        and ${t.target_concurrency} > 0 and ${t.queue_delay_ms} >= 0`,
    ),
  ],
);

/** LoRA adapters of deployed models, which they go with. What of the manifest is needed was read when it was checked. */
export const adapters = pgTable(
  "adapters",
  {
    model_id: text("model_id")
      .notNull()
      .references(() => models.model_id, { onDelete: "cascade" }),
    name: text("name").notNull(),
    checkpoint: text("checkpoint").notNull(),
    rank: integer("rank").notNull(),
    weights_bytes: bytes("weights_bytes").notNull(),
    created_at: createdAt(),
  },
  (t) => [primaryKey({ columns: [t.model_id, t.name] })],
);

/** Which bytes of a checkpoint lie in which tier of which worker; follows the workers' reports. */
export const placements = pgTable(
  "placements",
  {
    worker_id: text("worker_id")
      .notNull()
      .references(() => workers.worker_id, { onDelete: "cascade" }),
    /** No foreign key: a worker may hold checkpoints that nobody deployed yet. */
    checkpoint: text("checkpoint").notNull(),
    tier: tierEnum("tier").notNull(),
    state: placementStateEnum("state").notNull(),
    bytes_present: bytes("bytes_present").notNull(),
    updated_at: at("updated_at").notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ columns: [t.worker_id, t.checkpoint, t.tier] }),
    check("placements_bytes_not_negative", sql`${t.bytes_present} >= 0`),
  ],
);

/** One running (or ended) copy of a model on one device; holds `memory_bytes` of it until it is gone or failed. */
export const instances = pgTable(
  "instances",
  {
    instance_id: text("instance_id").primaryKey(),
    /** No foreign key: ended instances outlive the deletion of their model. */
    model_id: text("model_id").notNull(),
    checkpoint: text("checkpoint").notNull(),
    worker_id: text("worker_id")
      .notNull()
      .references(() => workers.worker_id),
    incarnation: text("incarnation").notNull(),
    device_id: text("device_id").notNull(),
    state: instanceStateEnum("state").notNull(),
    context_tokens: integer("context_tokens").notNull(),
    slots: integer("slots").notNull(),
    kv_tokens: integer("kv_tokens"),
    deterministic: boolean("deterministic").notNull().default(false),
    /** Of memory_bytes, what is booked for adapters. */
    adapter_bytes: bytes("adapter_bytes").notNull().default(0),
    /** As its worker reported it; null before, and where equal answers are not promised. */
    fingerprint: text("fingerprint"),
    memory_bytes: bytes("memory_bytes").notNull(),
    error_code: text("error_code").$type<ErrorCode>(),
    error_message: text("error_message"),
    created_at: createdAt(),
    ready_at: at("ready_at"),
    last_used_at: at("last_used_at"),
    ended_at: at("ended_at"),
    changed_tx: writtenIn("changed_tx"),
  },
  (t) => [
    index("instances_changed").on(t.changed_tx),
    index("instances_live_by_model").on(t.model_id).where(liveInstance),
    index("instances_live_by_worker").on(t.worker_id).where(liveInstance),
    index("instances_by_end").on(t.ended_at).where(sql`${t.ended_at} is not null`),
    check("instances_memory_not_negative", sql`${t.memory_bytes} >= 0`),
    check("instances_ended_with_time", sql`(${t.state} in ('gone', 'failed')) = (${t.ended_at} is not null)`),
  ],
);

/** Requests and what became of them. Never holds prompts or text. */
export const generations = pgTable(
  "generations",
  {
    generation_id: text("generation_id").primaryKey(),
    model_id: text("model_id").notNull(),
    state: generationStateEnum("state").notNull(),
    /** Changes together with `owner`, the gateway that feeds the generation's placement, and only upwards. */
    epoch: integer("epoch").notNull().default(1),
    /** null: the row of a gateway that wrote none. */
    owner: text("owner"),
    worker_id: text("worker_id"),
    instance_id: text("instance_id"),
    cold_start: boolean("cold_start").notNull().default(false),
    prompt_tokens: integer("prompt_tokens"),
    completion_tokens: integer("completion_tokens"),
    finish_reason: finishReasonEnum("finish_reason"),
    error_code: text("error_code").$type<ErrorCode>(),
    error_message: text("error_message"),
    timeline_ms: jsonb("timeline_ms").$type<Timeline>(),
    /** Why it ran where it did, for whoever asks any gateway; null until its gateway had time to write them. */
    decisions: json("decisions").$type<ExplainedDecision[]>(),
    created_at: createdAt(),
    finished_at: at("finished_at"),
  },
  (t) => [
    index("generations_by_creation").on(t.created_at),
    index("generations_unfinished").on(t.owner).where(sql`${t.finished_at} is null`),
    check(
      "generations_finished_with_time",
      sql`(${t.state} in ('finished', 'cancelled', 'failed')) = (${t.finished_at} is not null)`,
    ),
  ],
);

/**
 * Of requests that may be read again (an idempotency key, `background`, `x-sllm-resume`): all that is needed to go on
 * with them. Gone with the replay time after their end, unlike their rows in `generations`.
 */
export const generation_records = pgTable("generation_records", {
  generation_id: text("generation_id")
    .primaryKey()
    .references(() => generations.generation_id, { onDelete: "cascade" }),
  tenant: text("tenant").notNull(),
  /** How long it is kept without a reader; null: it runs to its end without one. */
  resume_ms: integer("resume_ms"),
  settings: json("settings").$type<GenerationSettings>().notNull(),
  /** The prompt's tokens; null before a worker told them. */
  prompt: json("prompt").$type<number[]>(),
  hops: json("hops").$type<GenerationHop[]>().notNull().default([]),
  /** Its end, once it finished: what was held back until then, and usage. */
  done: json("done").$type<DoneEvent>(),
});

/** Output of such requests in batches, as it was told to readers. Only the owner of the row's epoch adds to it. */
export const token_log = pgTable(
  "token_log",
  {
    generation_id: text("generation_id")
      .notNull()
      .references(() => generation_records.generation_id, { onDelete: "cascade" }),
    first_index: integer("first_index").notNull(),
    /** One beyond the last token of the batch: where the next one begins. */
    next_index: integer("next_index").notNull(),
    /** Consecutive. */
    events: json("events").$type<TokensEvent[]>().notNull(),
    written_at: at("written_at").notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ columns: [t.generation_id, t.first_index] }),
    check("token_log_not_empty", sql`${t.next_index} > ${t.first_index}`),
  ],
);

/** Which generation a tenant's key stands for. */
export const idempotency_keys = pgTable(
  "idempotency_keys",
  {
    tenant: text("tenant").notNull(),
    key: text("key").notNull(),
    /** SHA-256 of the request: another one must not take the key. */
    body_digest: text("body_digest").notNull(),
    generation_id: text("generation_id")
      .notNull()
      .references(() => generation_records.generation_id, { onDelete: "cascade" }),
    created_at: createdAt(),
  },
  (t) => [
    primaryKey({ columns: [t.tenant, t.key] }),
    index("idempotency_keys_by_generation").on(t.generation_id),
  ],
);

/** Streams that move, or moved, from one worker to another. A stream has at most one move under way. */
export const migrations = pgTable(
  "migrations",
  {
    migration_id: text("migration_id").primaryKey(),
    generation_id: text("generation_id").notNull(),
    model_id: text("model_id").notNull(),
    state: migrationStateEnum("state").notNull(),
    /** The gateway that drives it; another one may finish or end it from this row. */
    owner: text("owner").notNull(),
    from_worker_id: text("from_worker_id").notNull(),
    from_instance_id: text("from_instance_id").notNull(),
    to_worker_id: text("to_worker_id").notNull(),
    /** null until the destination has an instance. */
    to_instance_id: text("to_instance_id"),
    /** That the generation has at the destination; null before the hand-over. */
    epoch: integer("epoch"),
    method: migrationMethodEnum("method"),
    rounds: integer("rounds").notNull().default(0),
    /** Taken in by the destination so far: tokens, computed or copied, and bytes of the KV cache. */
    tokens: integer("tokens").notNull().default(0),
    bytes: bytes("bytes").notNull().default(0),
    /** How long its steps took, and the stream's pause; as far as known. */
    timings_ms: jsonb("timings_ms").$type<Record<string, number>>(),
    /** Why it was asked for. */
    reason: text("reason").notNull(),
    error_code: text("error_code").$type<ErrorCode>(),
    error_message: text("error_message"),
    created_at: createdAt(),
    updated_at: at("updated_at").notNull().defaultNow(),
    ended_at: at("ended_at"),
  },
  (t) => [
    uniqueIndex("migrations_live").on(t.generation_id).where(liveMigration),
    index("migrations_by_creation").on(t.created_at),
    check(
      "migrations_ended_with_time",
      sql`(${t.state} in ('finished', 'dropped', 'failed')) = (${t.ended_at} is not null)`,
    ),
    check("migrations_elsewhere", sql`${t.from_worker_id} <> ${t.to_worker_id}`),
  ],
);

/**
 * What gateways have learned: the last values of a quantity and the last relative errors of estimates that rest on it.
 * Empty texts in the key stand for "any".
 */
export const estimates = pgTable(
  "estimates",
  {
    quantity: estimateQuantityEnum("quantity").notNull(),
    worker_id: text("worker_id").notNull(),
    model_id: text("model_id").notNull(),
    device_kind: text("device_kind").notNull(),
    /** What of it; the admin API says which. */
    detail: text("detail").notNull(),
    values: doublePrecision("values").array().notNull(),
    errors: doublePrecision("errors").array().notNull(),
    observations: bigint("observations", { mode: "number" }).notNull(),
    updated_at: at("updated_at").notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.quantity, t.worker_id, t.model_id, t.device_kind, t.detail] })],
);

/** Audit of every change of a state. */
export const events = pgTable(
  "events",
  {
    event_id: bigserial("event_id", { mode: "number" }).primaryKey(),
    at: at("at").notNull().defaultNow(),
    entity: eventEntityEnum("entity").notNull(),
    entity_id: text("entity_id").notNull(),
    from_state: text("from_state"),
    to_state: text("to_state").notNull(),
    reason: text("reason").notNull(),
  },
  (t) => [index("events_entity").on(t.entity, t.entity_id, t.event_id)],
);

/**
 * What one gateway does for all. Nobody compares clocks: a holder raises `beat` while it lives, and who has seen no new
 * beat for the time of a lease, by a clock of its own, may take over if the row is still the one it saw.
 */
export const leases = pgTable("leases", {
  name: text("name").primaryKey(),
  /** Id of a gateway; empty when it was given back. */
  holder: text("holder").notNull(),
  /** Grows with every change of the holder. */
  epoch: bigint("epoch", { mode: "number" }).notNull(),
  /** Grows with every write. */
  beat: bigint("beat", { mode: "number" }).notNull(),
  /** For people. */
  renewed_at: at("renewed_at").notNull().defaultNow(),
});

export type WorkerRow = Omit<typeof workers.$inferSelect, "changed_tx" | "holdings_tx">;
export type DeviceRow = typeof devices.$inferSelect;
export type CheckpointRow = typeof checkpoints.$inferSelect;
export type ModelRow = Omit<typeof models.$inferSelect, "changed_tx">;
export type AdapterRow = typeof adapters.$inferSelect;
export type PlacementRow = typeof placements.$inferSelect;
export type InstanceRow = Omit<typeof instances.$inferSelect, "changed_tx">;
export type GenerationRow = typeof generations.$inferSelect;
export type GenerationRecordRow = typeof generation_records.$inferSelect;
export type TokenLogRow = Omit<typeof token_log.$inferSelect, "written_at">;
export type MigrationRow = typeof migrations.$inferSelect;
export type EstimateRow = typeof estimates.$inferSelect;
export type EventRow = typeof events.$inferSelect;
export type LeaseRow = Omit<typeof leases.$inferSelect, "renewed_at">;
