/** From a command line to an exit status: finds the command, shows help, reports errors. Never calls exit. */
import { codes } from "../../schema/codes.ts";
import { SllmError } from "../../schema/error.ts";
import { type Command, parseArguments } from "./command.ts";
import { CommandFailure, exitStatus, UsageError } from "./failure.ts";
import { helpOf, overview, program } from "./help.ts";

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

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
    terminal.out(helpOf(command));
    return exitStatus.ok;
  }
  try {
    return await command.run(parseArguments(command.args, rest, command.rest !== undefined));
  } catch (error) {
    return report(error, command, terminal);
  }
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
