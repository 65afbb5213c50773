/**
 * Runs the command line of the project as a child process that is told of every signal we get and ends when we
 * end, whatever ends us.
 */
import { spawn } from "node:child_process";
import { findBun } from "./bun.mjs";
import { root } from "./repository.mjs";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Runs `bun deploy/cli/main.ts <arguments>` and resolves to the exit status for our own process.
 * The child's standard input is a pipe that breaks when this process dies, even by SIGKILL; `interactive` gives it
 * the terminal instead. Ctrl-C in a terminal reaches the whole process group, the child included, so it is not
 * passed on then; npm, between terminal and us, may still send it twice, which `sllm up` takes for once.
 * @param {readonly string[]} arguments_
 * @param {{ interactive?: boolean, env?: Record<string, string> }} [options]
 */
export function runCommandLine(arguments_, { interactive = false, env = {} } = {}) {
  const bun = findBun(root);
  if (bun === null) throw new Error("Bun is not installed yet: run 'npm run setup' in the project's folder");
  // Bun would read bunfig.toml and .env of the working directory, which is any folder of the user's.
  const options = [`--config=${root}/bunfig.toml`, "--no-env-file"];
  const child = spawn(bun, [...options, `${root}/deploy/cli/main.ts`, ...arguments_], {
    stdio: [interactive ? "inherit" : "pipe", "inherit", "inherit"],
    env: { ...process.env, ...env, ...(interactive ? {} : { SLLM_EXIT_WITH_PARENT: "1" }) },
  });
  const forward = (signal) => {
    if (signal !== "SIGINT" || process.stdin.isTTY !== true) child.kill(signal);
  };
  for (const signal of signals) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status, signal) => {
      for (const name of signals) process.off(name, forward);
      resolve(signal === null ? (status ?? 1) : 128 + signalNumber(signal));
    });
  });
}

function signalNumber(signal) {
  return { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15, SIGABRT: 6 }[signal] ?? 1;
}
