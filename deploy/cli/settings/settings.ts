/**
 * Settings of a command: flags over `SLLM_*` variables over one YAML file, checked by the schema that gateway and
 * worker use. A problem is reported where the user can mend it: the flag, the variable, or the line of the file.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { z } from "zod";
import {
  type Config,
  config,
  gatewayConfig,
  mergeSettings,
  settingsFromVariables,
  variableName,
  workerConfig,
} from "../../../schema/config.ts";
import { CommandFailure } from "../failure.ts";
import { type ConfigFile, readConfigFile } from "./config-file.ts";

/** Taken from the working directory when neither --config nor SLLM_CONFIG names another. */
const defaultFile = "sllm.yaml";

/** What surrounds a command; passed in, so that tests need no real environment. */
export interface Surroundings {
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** Working directory: relative paths in flags and variables start here. */
  readonly folder: string;
  /** The project: the default data folder lies in it. */
  readonly root: string;
}

export interface Settings {
  /** Valid settings; `data_dir` is absolute. */
  readonly config: Config;
  /** True when the user set it anywhere, false when it is the default. */
  isSet(...path: string[]): boolean;
}

/** A setting given by a flag, to name the flag in messages. */
export interface FlagSetting {
  readonly flag: string;
  readonly path: readonly [string] | readonly [string, string];
  readonly value: unknown;
}

/** Reads and checks all layers. Throws CommandFailure naming the source of every problem. */
export function readSettings(
  flags: readonly FlagSetting[],
  configPath: string | undefined,
  surroundings: Surroundings,
): Settings {
  const file = findFile(configPath, surroundings);
  const given = flags.filter((flag) => flag.value !== undefined);
  const fromFlags = mergeSettings(...given.map((flag) => nest(flag.path, flag.value)));
  const fromVariables = settingsFromVariables(surroundings.variables);
  const merged = mergeSettings(file?.settings ?? {}, fromVariables, fromFlags);
  const result = config.safeParse(merged);
  if (!result.success) {
    const lines = result.error.issues.flatMap((issue) => describe(issue, given, fromVariables, file));
    throw new CommandFailure(lines.join("\n"), { advice: "The settings are described in deploy/README.md." });
  }
  return {
    config: {
      ...result.data,
      data_dir: dataFolder(result.data.data_dir, fromFlags, fromVariables, file, surroundings),
    },
    isSet: (...path) => valueAt(merged, path) !== undefined,
  };
}

function findFile(configPath: string | undefined, { variables, folder }: Surroundings): ConfigFile | null {
  const named = configPath ?? variables[variableName("config")];
  if (named !== undefined) return readConfigFile(resolve(folder, named));
  const path = join(folder, defaultFile);
  return existsSync(path) ? readConfigFile(path) : null;
}

/** Relative to where it was said: the file's folder, the working directory, or the project for the default. */
function dataFolder(
  value: string,
  fromFlags: { [key: string]: unknown },
  fromVariables: { [key: string]: unknown },
  file: ConfigFile | null,
  { folder, root }: Surroundings,
): string {
  if (fromFlags.data_dir !== undefined || fromVariables.data_dir !== undefined) return resolve(folder, value);
  if (file?.settings.data_dir !== undefined) return resolve(dirname(file.path), value);
  return resolve(root, value);
}

function describe(
  issue: z.core.$ZodIssue,
  flags: readonly FlagSetting[],
  fromVariables: { [key: string]: unknown },
  file: ConfigFile | null,
): string[] {
  const base = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map(
      (key) => `${place(file, [...base, key])}${[...base, key].join(".")}: there is no such setting`,
    );
  }
  const setting = base.slice(0, 2);
  const flag = flags.find((candidate) => candidate.path.join(".") === setting.join("."));
  const name = setting.join(".") || "settings";
  if (flag !== undefined) return [`${flag.flag} (${name}): ${issue.message}`];
  if (valueAt(fromVariables, setting) !== undefined)
    return [`${variableName(...setting)} (${name}): ${issue.message}`];
  return [`${place(file, base)}${name}: ${issue.message}`];
}

function place(file: ConfigFile | null, path: readonly string[]): string {
  if (file === null) return "";
  const line = file.lineOf(path);
  return line === null ? `${file.path}: ` : `${file.path}:${line}: `;
}

const settingVariables = new Set([
  ...Object.keys(config.shape).map((name) => variableName(name)),
  ...Object.keys(gatewayConfig.shape).map((name) => variableName("gateway", name)),
  ...Object.keys(workerConfig.shape).map((name) => variableName("worker", name)),
]);

/** True for the variables of settings: children get them from the settings as read, not from our surroundings. */
export function isSettingVariable(name: string): boolean {
  return settingVariables.has(name);
}

function nest(path: readonly string[], value: unknown): { [key: string]: unknown } {
  const [first = "", second] = path;
  return { [first]: second === undefined ? value : { [second]: value } };
}

function valueAt(settings: unknown, path: readonly string[]): unknown {
  let value = settings;
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Object.entries(value).find(([name]) => name === key)?.[1];
  }
  return value;
}
