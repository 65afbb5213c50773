CREATE TYPE "public"."migration_method" AS ENUM('recompute', 'kv_transfer');--> statement-breakpoint
CREATE TYPE "public"."migration_state" AS ENUM('planned', 'loading', 'copying', 'handing_over', 'finished', 'dropped', 'failed');--> statement-breakpoint
ALTER TYPE "public"."event_entity" ADD VALUE 'migration';--> statement-breakpoint
CREATE TABLE "generation_records" (
	"generation_id" text PRIMARY KEY NOT NULL,
	"tenant" text NOT NULL,
	"resume_ms" integer,
	"settings" json NOT NULL,
	"prompt" json,
	"hops" json DEFAULT '[]'::json NOT NULL,
	"done" json
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"tenant" text NOT NULL,
	"key" text NOT NULL,
	"body_digest" text NOT NULL,
	"generation_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "idempotency_keys_tenant_key_pk" PRIMARY KEY("tenant","key")
);
--> statement-breakpoint
CREATE TABLE "migrations" (
	"migration_id" text PRIMARY KEY NOT NULL,
	"generation_id" text NOT NULL,
	"model_id" text NOT NULL,
	"state" "migration_state" NOT NULL,
	"owner" text NOT NULL,
	"from_worker_id" text NOT NULL,
	"from_instance_id" text NOT NULL,
	"to_worker_id" text NOT NULL,
	"to_instance_id" text,
	"epoch" integer,
	"method" "migration_method",
	"rounds" integer DEFAULT 0 NOT NULL,
	"tokens" integer DEFAULT 0 NOT NULL,
	"bytes" bigint DEFAULT 0 NOT NULL,
	"timings_ms" jsonb,
	"reason" text NOT NULL,
	"error_code" text,
	"error_message" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"ended_at" timestamp (3) with time zone,
	CONSTRAINT "migrations_ended_with_time" CHECK (("migrations"."state" in ('finished', 'dropped', 'failed')) = ("migrations"."ended_at" is not null)),
	CONSTRAINT "migrations_elsewhere" CHECK ("migrations"."from_worker_id" <> "migrations"."to_worker_id")
);
--> statement-breakpoint
CREATE TABLE "token_log" (
	"generation_id" text NOT NULL,
	"first_index" integer NOT NULL,
	"next_index" integer NOT NULL,
	"events" json NOT NULL,
	"written_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "token_log_generation_id_first_index_pk" PRIMARY KEY("generation_id","first_index"),
	CONSTRAINT "token_log_not_empty" CHECK ("token_log"."next_index" > "token_log"."first_index")
);
--> statement-breakpoint
ALTER TABLE "generations" ADD COLUMN "owner" text;--> statement-breakpoint
ALTER TABLE "generation_records" ADD CONSTRAINT "generation_records_generation_id_generations_generation_id_fk" FOREIGN KEY ("generation_id") REFERENCES "public"."generations"("generation_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_generation_id_generation_records_generation_id_fk" FOREIGN KEY ("generation_id") REFERENCES "public"."generation_records"("generation_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "token_log" ADD CONSTRAINT "token_log_generation_id_generation_records_generation_id_fk" FOREIGN KEY ("generation_id") REFERENCES "public"."generation_records"("generation_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "idempotency_keys_by_generation" ON "idempotency_keys" USING btree ("generation_id");--> statement-breakpoint
CREATE UNIQUE INDEX "migrations_live" ON "migrations" USING btree ("generation_id") WHERE state not in ('finished', 'dropped', 'failed');--> statement-breakpoint
CREATE INDEX "migrations_by_creation" ON "migrations" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "generations_unfinished" ON "generations" USING btree ("owner") WHERE "generations"."finished_at" is null;