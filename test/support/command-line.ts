/** Runs the `sllm` command and the scripts around it as a user does: as processes, with only the surroundings given. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { repositoryRoot } from "./processes.ts";

export interface Finished {
  readonly status: number | string;
  readonly out: string;
  readonly err: string;
}

export interface Started {
  readonly pid: number;
  readonly child: ChildProcess;
  out(): string;
  err(): string;
  readonly finished: Promise<Finished>;
  /** Resolves when standard output holds the text; throws with all output when the process ends before. */
  untilPrinted(text: string): Promise<void>;
}

/** Command lines of the programs under test. */
export const programs = {
  sllm: [process.execPath, path.join(repositoryRoot, "deploy/cli/main.ts")],
  start: ["node", path.join(repositoryRoot, "deploy/scripts/start.mjs")],
  demo: ["node", path.join(repositoryRoot, "deploy/scripts/demo.mjs")],
  entry: ["node", path.join(repositoryRoot, "deploy/bin/sllm.mjs")],
} as const;

/** Variables a program needs to run at all; settings of our surroundings stay out. */
function bareVariables(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of ["PATH", "HOME", "SLLM_NATIVE_LIBRARY", "SLLM_ENGINE_LIBRARIES"]) {
    const value = process.env[name];
    if (value !== undefined) kept[name] = value;
  }
  return kept;
}

/** Starts a program in a folder of the caller's. */
export function startProgram(
  [program, ...before]: readonly [string, ...string[]],
  args: readonly string[],
  { folder, variables = {} }: { folder: string; variables?: Readonly<Record<string, string>> },
): Started {
  const child = spawn(program, [...before, ...args], {
    cwd: folder,
    env: { ...bareVariables(), ...variables },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => resolve({ status: status ?? signal ?? "unknown", out, err }));
  });
  return {
    pid: child.pid ?? -1,
    child,
    out: () => out,
    err: () => err,
    finished,
    untilPrinted: async (text) => {
      const ended = finished.then((end) => {
        throw new Error(`ended with ${end.status} before it printed '${text}':\n${end.out}\n${end.err}`);
      });
      const printed = (async () => {
        while (!out.includes(text)) await Bun.sleep(20);
      })();
      await Promise.race([printed, ended]);
    },
  };
}

/** Runs a program to its end with nothing on standard input. */
export function runProgram(
  program: readonly [string, ...string[]],
  args: readonly string[],
  options: { folder: string; variables?: Readonly<Record<string, string>> },
): Promise<Finished> {
  const started = startProgram(program, args, options);
  started.child.stdin?.end();
  return started.finished;
}

/** Ids of the processes below this one, children of children included. */
export function descendantsOf(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It ended while we looked.
    }
  }
  const found: number[] = [];
  for (let front = [pid]; front.length > 0; ) {
    front = [...parents].filter(([, parent]) => front.includes(parent)).map(([child]) => child);
    found.push(...front);
  }
  return found;
}
