/** Starts the real programs as processes on free ports, reads their ready lines and stops them by their ids. */
import { type ChildProcess, spawn } from "node:child_process";
import { appendFileSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";

export const repositoryRoot = path.resolve(import.meta.dir, "../..");

/** Longest wait for a process to become ready: the embedded database's first boot takes seconds on a slow core. */
const readyMs = 60_000;
/** Longest wait for a graceful end before the process is killed. */
const exitMs = 15_000;
const keptLogLines = 400;
/** Where whole logs go as well, a file for each process; nowhere if left out. */
const logFolder = process.env.SLLM_TEST_LOGS;

export interface RunningProcess {
  readonly pid: number;
  /** URL of the ready line. */
  readonly url: string;
  /** Last lines of standard error, for messages of failed tests. */
  log(): string;
  /** Resolves with the exit status (or the signal's name) when the process is gone. */
  readonly exited: Promise<number | string>;
  /** SIGTERM, then SIGKILL when it takes too long. Resolves with the exit status. */
  stop(): Promise<number | string>;
  kill(signal: NodeJS.Signals): void;
  /** Closes all its pipes at once, as the end of its parent does. */
  abandon(): void;
}

export interface ProcessOptions {
  /** Script, relative to the repository's root or absolute. */
  readonly script: string;
  /** Program and options that run the script; this Bun if left out. */
  readonly command?: readonly string[];
  readonly variables: Readonly<Record<string, string>>;
}

/** Starts a script and waits for its ready line. Throws with its log when it ends or stays silent. */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  const [program = process.execPath, ...before] = options.command ?? [];
  const child = spawn(program, [...before, path.resolve(repositoryRoot, options.script)], {
    cwd: repositoryRoot,
    env: { ...inheritedVariables(), SLLM_EXIT_WITH_PARENT: "1", ...options.variables },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const lines: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    lines.push(line);
    if (lines.length > keptLogLines) lines.shift();
    if (logFolder !== undefined) appendFileSync(logFile(logFolder, options.script, child.pid), `${line}\n`);
  });
  const log = () => lines.join("\n");
  const exited = new Promise<number | string>((resolve) => {
    child.once("exit", (status, signal) => resolve(status ?? signal ?? "unknown"));
  });
  const url = await readyUrl(child, exited, options.script, log);
  if (child.pid === undefined) throw new Error(`${options.script} has no process id`);
  return {
    pid: child.pid,
    url,
    log,
    exited,
    kill: (signal) => void child.kill(signal),
    abandon: () => {
      for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy();
    },
    stop: async () => {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), exitMs);
      const status = await exited;
      clearTimeout(timer);
      return status;
    },
  };
}

function logFile(folder: string, script: string, pid: number | undefined): string {
  mkdirSync(folder, { recursive: true });
  return path.join(folder, `${script.replaceAll("/", "-")}-${pid}.log`);
}

/** Settings of the surroundings must not reach the processes under test. */
function inheritedVariables(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    const isOurs =
      name.startsWith("SLLM_") && name !== "SLLM_NATIVE_LIBRARY" && name !== "SLLM_ENGINE_LIBRARIES";
    if (value !== undefined && !isOurs) kept[name] = value;
  }
  return kept;
}

async function readyUrl(
  child: ChildProcess,
  exited: Promise<number | string>,
  script: string,
  log: () => string,
): Promise<string> {
  const output = child.stdout;
  if (!output) throw new Error("standard output is not piped");
  const ready = new Promise<string>((resolve, reject) => {
    createInterface({ input: output }).on("line", (line) => {
      const event: unknown = JSON.parse(line);
      if (
        typeof event === "object" &&
        event !== null &&
        "event" in event &&
        event.event === "ready" &&
        "url" in event
      ) {
        resolve(String(event.url));
      }
    });
    exited.then((status) =>
      reject(new Error(`${script} ended with ${status} before it was ready:\n${log()}`)),
    );
  });
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`${script} was not ready after ${readyMs} ms:\n${log()}`));
    }, readyMs);
  });
  try {
    return await Promise.race([ready, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** True while a process with this id exists (and is no zombie). */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Proportional share of memory of the processes in bytes: what would be freed if they ended, shared pages divided. */
export function pssBytes(pids: readonly number[]): number {
  let total = 0;
  for (const pid of pids) {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    total += Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
  }
  return total;
}
