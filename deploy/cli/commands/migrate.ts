/**
 * `sllm migrate`: brings the gateways' database to the tables of this version, as a user who may do that. With a
 * generation: moves it to another worker while it is being read.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { variablesFromConfig } from "../../../schema/config.ts";
import { generationId } from "../../../schema/ids.ts";
import type { Arguments, Command } from "../command.ts";
import { CommandFailure, exitStatus, UsageError } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { type FlagSetting, readSettings } from "../settings/settings.ts";
import { root, settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine } from "../terminal/output.ts";

const migrated = z.object({ migrations: z.array(z.string()) });

export const migrate: Command = {
  name: "migrate",
  summary: "Create or update the tables of the gateways' database, or move a running generation",
  args: {
    generation: {
      type: "positional",
      required: false,
      description: "A generation to move to another worker; the database if left out",
    },
    to: { type: "string", valueHint: "worker", description: "Where to; the best place if left out" },
    ...urlArg,
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
    ["sllm migrate 0123456789abcdef0123456789abcdef", "the stream goes on at another worker"],
  ],
  async run(args) {
    const generation = args.text("generation");
    if (generation !== undefined) return await moveGeneration(args, generation);
    if (args.text("to") !== undefined) throw new UsageError("--to says where a generation goes: name one");
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

/** Answers carry the id with a word in front, as `chatcmpl-<id>`. */
async function moveGeneration(args: Arguments, text: string): Promise<number> {
  const id = text.slice(text.lastIndexOf("-") + 1);
  if (!generationId.safeParse(id).success) throw new UsageError(`'${text}' is not the id of a generation`);
  const flags: FlagSetting[] = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }];
  const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
  const gateway = new GatewayClient(findTarget(args.text("url"), settings));
  const { migration_id } = await gateway.moveGeneration(id, args.text("to"));
  for (;;) {
    const move = (await gateway.listMigrations(id)).find((one) => one.migration_id === migration_id);
    if (move === undefined) throw new CommandFailure("the gateway has forgotten the move");
    const { state, error, from_worker_id, to_worker_id, rounds, tokens, timings_ms } = move;
    if (state === "finished") {
      const pause = timings_ms?.handed_over;
      const handed = pause === undefined ? "" : `, handed over in ${pause} ms`;
      printLine(`${from_worker_id} -> ${to_worker_id}: ${tokens} tokens in ${rounds} rounds${handed}.`);
      return exitStatus.ok;
    }
    if (state === "dropped") throw new CommandFailure("the generation ended before it was moved");
    if (state === "failed")
      throw new CommandFailure(`it goes on where it was: ${error?.message ?? "no reason"}`);
    await new Promise((resolve) => setTimeout(resolve, poll_ms));
  }
}

/** How often the gateway is asked how far the move is. */
const poll_ms = 200;

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
