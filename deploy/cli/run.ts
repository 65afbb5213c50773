/** From a command line to an exit status: finds the command, shows help, reports errors. Never calls exit. */
import { type CommandDef, renderUsage } from "citty";
import { codes } from "../../schema/codes.ts";
import { SllmError } from "../../schema/error.ts";
import { type Command, parseArguments } from "./command.ts";
import { CommandFailure, exitStatus, UsageError } from "./failure.ts";

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

const program = "sllm";

/** Runs one command line, without the program's name, and resolves to its exit status. */
export async function run(
  commands: readonly Command[],
  version: string,
  line: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const [name, ...rest] = line;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    terminal.out(overview(commands));
    return name === undefined ? exitStatus.usage : exitStatus.ok;
  }
  if (name === "--version" || name === "-v") {
    terminal.out(version);
    return exitStatus.ok;
  }
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    terminal.err(`error: there is no command '${name}'\n\n${overview(commands)}`);
    return exitStatus.usage;
  }
  const ownFlags = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
  if (ownFlags.includes("--help") || ownFlags.includes("-h")) {
    terminal.out(await help(command));
    return exitStatus.ok;
  }
  try {
    return await command.run(parseArguments(command.args, rest));
  } catch (error) {
    return report(error, command, terminal);
  }
}

function overview(commands: readonly Command[]): string {
  const shown = commands.filter((command) => command.isHidden !== true);
  const width = Math.max(...shown.map((command) => command.name.length));
  return [
    "Serverless inference for large language models.",
    "",
    `Usage: ${program} <command> [arguments]`,
    "",
    ...shown.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}`),
    "",
    `'${program} <command> --help' explains a command, '${program} --version' prints the version.`,
  ].join("\n");
}

async function help(command: Command): Promise<string> {
  const definition: CommandDef = {
    meta: { name: `${program} ${command.name}`, description: command.summary },
    args: command.args,
  };
  const width = Math.max(...command.examples.map(([line]) => line.length));
  return [
    (await renderUsage(definition)).trimEnd(),
    "",
    "EXAMPLES",
    "",
    ...command.examples.map(([line, note]) => `  ${line.padEnd(width)}  # ${note}`),
  ].join("\n");
}

/** Expected failures in one or two lines; anything else is a defect and keeps its stack. */
function report(error: unknown, command: Command, terminal: Terminal): number {
  if (error instanceof UsageError) {
    terminal.err(`error: ${error.message}\n'${program} ${command.name} --help' shows how it is used.`);
    return exitStatus.usage;
  }
  if (error instanceof CommandFailure) {
    terminal.err(`error: ${error.message}${error.advice === undefined ? "" : `\n${error.advice}`}`);
    return exitStatus.failed;
  }
  if (error instanceof SllmError) {
    terminal.err(`error: ${error.message} (${error.code})\n${codes[error.code].hint}`);
    return exitStatus.failed;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  terminal.err(`error: this is a defect of ${program}:\n${text}`);
  return exitStatus.failed;
}
