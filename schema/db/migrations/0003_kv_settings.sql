ALTER TABLE "instances" ADD COLUMN "kv_tokens" integer;--> statement-breakpoint
ALTER TABLE "instances" ADD COLUMN "deterministic" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "instances" ADD COLUMN "fingerprint" text;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "kv_tokens" integer;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "deterministic" boolean DEFAULT false NOT NULL;