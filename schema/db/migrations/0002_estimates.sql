CREATE TYPE "public"."estimate_quantity" AS ENUM('bandwidth', 'init', 'service', 'prefill', 'start');--> statement-breakpoint
CREATE TABLE "estimates" (
	"quantity" "estimate_quantity" NOT NULL,
	"worker_id" text NOT NULL,
	"model_id" text NOT NULL,
	"device_kind" text NOT NULL,
	"detail" text NOT NULL,
	"values" double precision[] NOT NULL,
	"errors" double precision[] NOT NULL,
	"observations" bigint NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "estimates_quantity_worker_id_model_id_device_kind_detail_pk" PRIMARY KEY("quantity","worker_id","model_id","device_kind","detail")
);
