/**
 * A command of `sllm`: its arguments as data, its examples, and its work. Parsing is citty's; what citty lets pass
 * (unknown flags, surplus arguments, flags without their value) is refused here.
 */
import { type ArgsDef, parseArgs } from "citty";
import { UsageError } from "./failure.ts";

export interface Command {
  readonly name: string;
  /** One line, without a full stop. */
  readonly summary: string;
  readonly args: ArgsDef;
  /** What any number of further positions stand for; without it they are refused. */
  readonly rest?: { readonly name: string; readonly description: string };
  /** Command lines that can be pasted, each with a note of a few words. */
  readonly examples: readonly (readonly [line: string, note: string])[];
  readonly isHidden?: boolean;
  /** Resolves to the exit status; throws UsageError or CommandFailure. */
  run(args: Arguments): Promise<number>;
}

/** What the user gave, by the names in `args`. */
export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>;
  /** Positions beyond the named ones. */
  readonly rest: readonly string[];

  constructor(values: Readonly<Record<string, unknown>>, rest: readonly string[] = []) {
    this.#values = values;
    this.rest = rest;
  }

  /** Text of a flag or a position; undefined when it was not given. */
  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  /** Text of a position that citty has required already. */
  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw new UsageError(`<${name}> is missing`);
    return value;
  }

  /** State of a switch; false when neither given nor on by default. */
  isOn(name: string): boolean {
    return this.#values[name] === true;
  }

  /** A whole number within bounds; undefined when it was not given. */
  count(name: string, min: number, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new UsageError(`--${name} takes a whole number from ${min} to ${max}, not '${text}'`);
  }

  /** A time with its unit (`500ms`, `30s`, `5m`, `1h`) in milliseconds; undefined when it was not given. */
  duration(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const match = /^(\d{1,9})(ms|s|m|h)$/.exec(text);
    const unit_ms = match === null ? undefined : unitsMs.get(match[2] ?? "");
    if (match === null || unit_ms === undefined) {
      throw new UsageError(
        `--${name} takes a time with its unit, such as 500ms, 30s, 5m or 1h, not '${text}'`,
      );
    }
    return Number(match[1]) * unit_ms;
  }
}

const unitsMs = new Map([
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

/** Parses what follows the command's name. Throws UsageError naming what is wrong. */
export function parseArguments(args: ArgsDef, given: readonly string[], takesRest = false): Arguments {
  const parsed: Record<string, unknown> & { _: string[] } = parseWithCitty(args, given);
  for (const [name, value] of Object.entries(parsed)) {
    if (name === "_") continue;
    const definition = args[name] ?? findByAlias(args, name);
    const dashes = name.length === 1 ? "-" : "--";
    if (definition === undefined) throw new UsageError(`unknown flag ${dashes}${name}`);
    if (definition.type === "string" && value === "") throw new UsageError(`${dashes}${name} needs a value`);
    if (definition.type === "string" && typeof value === "boolean") {
      throw new UsageError(`unknown flag --no-${name}`);
    }
  }
  const positions = Object.values(args).filter((arg) => arg.type === "positional").length;
  const rest = parsed._.slice(positions);
  if (!takesRest && rest[0] !== undefined) throw new UsageError(`unexpected argument '${rest[0]}'`);
  return new Arguments(parsed, rest);
}

function parseWithCitty(args: ArgsDef, given: readonly string[]) {
  try {
    return parseArgs([...given], args);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message.toLowerCase() : String(error));
  }
}

function findByAlias(args: ArgsDef, alias: string) {
  const camel = alias.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const kebab = alias.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return (
    args[camel] ??
    args[kebab] ??
    Object.values(args).find(
      (arg) => "alias" in arg && arg.alias !== undefined && [arg.alias].flat().includes(alias),
    )
  );
}
