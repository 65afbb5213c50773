/** Help texts from the commands' own data: plain, left-aligned, for terminals and files alike. Pure. */
import type { ArgDef } from "citty";
import type { Command } from "./command.ts";

export const program = "sllm";

/** All commands, one line each. */
export function overview(commands: readonly Command[]): string {
  const shown = commands.filter((command) => command.isHidden !== true);
  return [
    "Serverless inference for large language models.",
    "",
    `Usage: ${program} <command> [arguments]`,
    "",
    ...columns(shown.map((command) => [command.name, command.summary])),
    "",
    `'${program} <command> --help' explains a command, '${program} --version' prints the version.`,
  ].join("\n");
}

/** One command: usage, arguments, flags, examples. */
export function helpOf(command: Command): string {
  const entries = Object.entries(command.args);
  const positions = entries.filter(([, arg]) => arg.type === "positional");
  const flags = entries.filter(([, arg]) => arg.type !== "positional");
  const usage = positions.map(([name, arg]) => (arg.required === false ? `[${name}]` : `<${name}>`));
  const described = positions.map(([name, arg]): [string, string] => [name, arg.description ?? ""]);
  if (command.rest) {
    usage.push(`[${command.rest.name} ...]`);
    described.push([command.rest.name, command.rest.description]);
  }
  return [
    `${command.summary}.`,
    "",
    ["Usage:", program, command.name, ...usage, ...(flags.length > 0 ? ["[flags]"] : [])].join(" "),
    ...section("Arguments", columns(described)),
    ...section("Flags", columns(flags.map(([name, arg]) => describeFlag(name, arg)))),
    ...section("Examples", columns(command.examples.map(([line, note]) => [line, `# ${note}`]))),
  ].join("\n");
}

/** A switch that is on by default is shown by the form that turns it off. */
function describeFlag(name: string, arg: ArgDef): [string, string] {
  if (arg.type === "boolean" && arg.default === true) {
    const negative = "negativeDescription" in arg ? arg.negativeDescription : undefined;
    return [`--no-${name}`, negative ?? arg.description ?? ""];
  }
  return [
    arg.type === "boolean" ? `--${name}` : `--${name} <${arg.valueHint ?? "value"}>`,
    arg.description ?? "",
  ];
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", `${title}:`, ...lines];
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(0, ...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}  ${second}`.trimEnd());
}
