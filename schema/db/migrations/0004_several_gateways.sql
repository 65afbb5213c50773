CREATE TABLE "leases" (
	"name" text PRIMARY KEY NOT NULL,
	"holder" text NOT NULL,
	"epoch" bigint NOT NULL,
	"beat" bigint NOT NULL,
	"renewed_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "generations" ADD COLUMN "decisions" json;--> statement-breakpoint
ALTER TABLE "instances" ADD COLUMN "changed_tx" bigint DEFAULT pg_current_xact_id()::text::bigint NOT NULL;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "changed_tx" bigint DEFAULT pg_current_xact_id()::text::bigint NOT NULL;--> statement-breakpoint
ALTER TABLE "workers" ADD COLUMN "changed_tx" bigint DEFAULT pg_current_xact_id()::text::bigint NOT NULL;--> statement-breakpoint
ALTER TABLE "workers" ADD COLUMN "holdings_tx" bigint DEFAULT pg_current_xact_id()::text::bigint NOT NULL;--> statement-breakpoint
CREATE INDEX "generations_by_creation" ON "generations" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "instances_changed" ON "instances" USING btree ("changed_tx");