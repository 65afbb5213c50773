CREATE TYPE "public"."device_kind" AS ENUM('cpu', 'cuda', 'hip', 'vulkan', 'metal');--> statement-breakpoint
CREATE TYPE "public"."event_entity" AS ENUM('worker', 'model', 'checkpoint', 'placement', 'instance', 'generation');--> statement-breakpoint
CREATE TYPE "public"."finish_reason" AS ENUM('stop', 'length');--> statement-breakpoint
CREATE TYPE "public"."generation_state" AS ENUM('queued', 'running', 'finished', 'cancelled', 'failed');--> statement-breakpoint
CREATE TYPE "public"."instance_state" AS ENUM('loading', 'ready', 'migrating', 'draining', 'parked', 'gone', 'failed');--> statement-breakpoint
CREATE TYPE "public"."model_state" AS ENUM('active', 'deleting');--> statement-breakpoint
CREATE TYPE "public"."placement_state" AS ENUM('loading', 'present', 'evicting');--> statement-breakpoint
CREATE TYPE "public"."tier" AS ENUM('device', 'host', 'disk', 'peer', 'origin');--> statement-breakpoint
CREATE TYPE "public"."worker_state" AS ENUM('ready', 'draining', 'lost', 'gone');--> statement-breakpoint
CREATE TABLE "checkpoints" (
	"digest" text PRIMARY KEY NOT NULL,
	"manifest" json NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "devices" (
	"worker_id" text NOT NULL,
	"device_id" text NOT NULL,
	"kind" "device_kind" NOT NULL,
	"memory_bytes" bigint NOT NULL,
	"reserved_bytes" bigint DEFAULT 0 NOT NULL,
	CONSTRAINT "devices_worker_id_device_id_pk" PRIMARY KEY("worker_id","device_id"),
	CONSTRAINT "devices_reserved_fits" CHECK ("devices"."reserved_bytes" between 0 and "devices"."memory_bytes")
);
--> statement-breakpoint
CREATE TABLE "events" (
	"event_id" bigserial PRIMARY KEY NOT NULL,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"entity" "event_entity" NOT NULL,
	"entity_id" text NOT NULL,
	"from_state" text,
	"to_state" text NOT NULL,
	"reason" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "generations" (
	"generation_id" text PRIMARY KEY NOT NULL,
	"model_id" text NOT NULL,
	"state" "generation_state" NOT NULL,
	"epoch" integer DEFAULT 1 NOT NULL,
	"worker_id" text,
	"instance_id" text,
	"cold_start" boolean DEFAULT false NOT NULL,
	"prompt_tokens" integer,
	"completion_tokens" integer,
	"finish_reason" "finish_reason",
	"error_code" text,
	"error_message" text,
	"timeline_ms" jsonb,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"finished_at" timestamp (3) with time zone,
	CONSTRAINT "generations_finished_with_time" CHECK (("generations"."state" in ('finished', 'cancelled', 'failed')) = ("generations"."finished_at" is not null))
);
--> statement-breakpoint
CREATE TABLE "instances" (
	"instance_id" text PRIMARY KEY NOT NULL,
	"model_id" text NOT NULL,
	"checkpoint" text NOT NULL,
	"worker_id" text NOT NULL,
	"incarnation" text NOT NULL,
	"device_id" text NOT NULL,
	"state" "instance_state" NOT NULL,
	"context_tokens" integer NOT NULL,
	"slots" integer NOT NULL,
	"memory_bytes" bigint NOT NULL,
	"error_code" text,
	"error_message" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"ready_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	CONSTRAINT "instances_memory_not_negative" CHECK ("instances"."memory_bytes" >= 0),
	CONSTRAINT "instances_ended_with_time" CHECK (("instances"."state" in ('gone', 'failed')) = ("instances"."ended_at" is not null))
);
--> statement-breakpoint
CREATE TABLE "models" (
	"model_id" text PRIMARY KEY NOT NULL,
	"state" "model_state" NOT NULL,
	"checkpoint" text NOT NULL,
	"context_tokens" integer NOT NULL,
	"slots" integer NOT NULL,
	"keep_alive_ms" integer NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "models_settings_valid" CHECK ("models"."context_tokens" > 0 and "models"."slots" > 0 and "models"."keep_alive_ms" >= 0)
);
--> statement-breakpoint
CREATE TABLE "placements" (
	"worker_id" text NOT NULL,
	"checkpoint" text NOT NULL,
	"tier" "tier" NOT NULL,
	"state" "placement_state" NOT NULL,
	"bytes_present" bigint NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "placements_worker_id_checkpoint_tier_pk" PRIMARY KEY("worker_id","checkpoint","tier"),
	CONSTRAINT "placements_bytes_not_negative" CHECK ("placements"."bytes_present" >= 0)
);
--> statement-breakpoint
CREATE TABLE "workers" (
	"worker_id" text PRIMARY KEY NOT NULL,
	"incarnation" text NOT NULL,
	"state" "worker_state" NOT NULL,
	"url" text NOT NULL,
	"version" text NOT NULL,
	"heartbeat_sequence" bigint DEFAULT -1 NOT NULL,
	"last_heartbeat_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "devices" ADD CONSTRAINT "devices_worker_id_workers_worker_id_fk" FOREIGN KEY ("worker_id") REFERENCES "public"."workers"("worker_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "instances" ADD CONSTRAINT "instances_worker_id_workers_worker_id_fk" FOREIGN KEY ("worker_id") REFERENCES "public"."workers"("worker_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "models" ADD CONSTRAINT "models_checkpoint_checkpoints_digest_fk" FOREIGN KEY ("checkpoint") REFERENCES "public"."checkpoints"("digest") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "placements" ADD CONSTRAINT "placements_worker_id_workers_worker_id_fk" FOREIGN KEY ("worker_id") REFERENCES "public"."workers"("worker_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "events_entity" ON "events" USING btree ("entity","entity_id","event_id");--> statement-breakpoint
CREATE INDEX "instances_live_by_model" ON "instances" USING btree ("model_id") WHERE state not in ('gone', 'failed');--> statement-breakpoint
CREATE INDEX "instances_live_by_worker" ON "instances" USING btree ("worker_id") WHERE state not in ('gone', 'failed');--> statement-breakpoint
CREATE INDEX "instances_by_end" ON "instances" USING btree ("ended_at") WHERE "instances"."ended_at" is not null;