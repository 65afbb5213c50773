/**
 * The JSON schema of the settings file, for editors and for checks in pipelines; made from the zod schema that
 * everything uses. `bun deploy/cli/config-schema.ts` writes deploy/config.schema.json anew.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { config } from "../../schema/config.ts";
import { root } from "./settings/surroundings.ts";

export const configSchemaPath = join(root, "deploy", "config.schema.json");

/** Text of the published file, with a line end. */
export function configSchemaText(): string {
  const schema = z.toJSONSchema(config, { io: "input" });
  return `${JSON.stringify({ ...schema, title: "Settings of sllm" }, null, 2)}\n`;
}

if (import.meta.main) writeFileSync(configSchemaPath, configSchemaText());
