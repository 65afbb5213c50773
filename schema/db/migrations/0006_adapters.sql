ALTER TYPE "public"."event_entity" ADD VALUE 'adapter';--> statement-breakpoint
CREATE TABLE "adapters" (
	"model_id" text NOT NULL,
	"name" text NOT NULL,
	"checkpoint" text NOT NULL,
	"rank" integer NOT NULL,
	"weights_bytes" bigint NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "adapters_model_id_name_pk" PRIMARY KEY("model_id","name")
);
--> statement-breakpoint
ALTER TABLE "devices" ADD COLUMN "repacks" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "instances" ADD COLUMN "adapter_bytes" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "adapters" ADD CONSTRAINT "adapters_model_id_models_model_id_fk" FOREIGN KEY ("model_id") REFERENCES "public"."models"("model_id") ON DELETE cascade ON UPDATE no action;