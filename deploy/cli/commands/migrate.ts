/** `sllm migrate`: brings the gateways' database to the tables of this version, as a user who may do that. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { variablesFromConfig } from "../../../schema/config.ts";
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { type FlagSetting, readSettings } from "../settings/settings.ts";
import { root, settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine } from "../terminal/output.ts";

const migrated = z.object({ migrations: z.array(z.string()) });

export const migrate: Command = {
  name: "migrate",
  summary: "Create or update the tables of the gateways' database",
  args: {
    ...settingsArgs,
    "database-url": {
      type: "string",
      valueHint: "url",
      description: "postgres:// URL with a user who may create tables (SLLM_GATEWAY_DATABASE_URL)",
    },
  },
  examples: [
    [
      "sllm migrate --database-url postgres://owner@db/sllm",
      "before gateways whose user may not change tables",
    ],
  ],
  async run(args) {
    const flags: FlagSetting[] = [
      { flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") },
      { flag: "--database-url", path: ["gateway", "database_url"], value: args.text("database-url") },
    ];
    const { config } = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const { migrations } = await applyMigrations({ ...process.env, ...variablesFromConfig(config) });
    if (migrations.length === 0) printLine("The database is up to date.");
    else printLine(`Applied: ${migrations.join(", ")}.`);
    return exitStatus.ok;
  },
};

/** A program of the gateway's does it: it knows the database, commands do not. */
async function applyMigrations(env: NodeJS.ProcessEnv): Promise<z.infer<typeof migrated>> {
  const program = join(root, "gateway", "main", "migrate-database.ts");
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ["--no-env-file", program], {
      cwd: root,
      env,
    });
    return migrated.parse(JSON.parse(stdout));
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    if (said === "") throw error;
    throw new CommandFailure(`the migrations were not applied: ${said}`, { cause: error });
  }
}
