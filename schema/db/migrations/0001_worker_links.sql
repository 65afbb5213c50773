ALTER TABLE "workers" ADD COLUMN "links" json DEFAULT '[]'::json NOT NULL;--> statement-breakpoint
ALTER TABLE "workers" ADD COLUMN "problems" json DEFAULT '[]'::json NOT NULL;