ALTER TYPE "public"."estimate_quantity" ADD VALUE 'build';--> statement-breakpoint
ALTER TYPE "public"."estimate_quantity" ADD VALUE 'decode';--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "min_instances" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "max_instances" integer;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "target_concurrency" integer;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "queue_delay_ms" integer DEFAULT 5000 NOT NULL;--> statement-breakpoint
ALTER TABLE "models" ADD COLUMN "preload" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "models" ADD CONSTRAINT "models_scaling_valid" CHECK ("models"."min_instances" >= 0 and "models"."max_instances" >= greatest(1, "models"."min_instances")
        and "models"."target_concurrency" > 0 and "models"."queue_delay_ms" >= 0);