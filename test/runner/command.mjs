/** Runs a command of a stage: its output shown and kept, its whole process group ended when it hangs. */
import { spawn } from "node:child_process";

/** Kept for the report of a failure; a command may print without end. */
const keptChars = 200_000;
/** Time for a hung stage to clean up after SIGTERM before SIGKILL. */
const graceMs = 5_000;

/** Process groups under way, by the id of their leader. */
const running = new Set();

/**
 * @param {readonly [string, ...string[]]} command
 * @param {{ cwd: string, env?: Record<string, string | undefined>, limit_ms: number, isQuiet?: boolean }} options
 * @returns {Promise<{ status: number | null, isHung: boolean, output: string }>} `status` is null after a signal
 */
export function runCommand([program, ...args], { cwd, env = {}, limit_ms, isQuiet = false }) {
  return new Promise((resolve, reject) => {
    // A group of its own: what it starts can be ended with it.
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    let isHung = false;
    const take = (text) => {
      output = (output + text).slice(-keptChars);
      if (!isQuiet) process.stdout.write(text);
    };
    child.stdout.setEncoding("utf8").on("data", take);
    child.stderr.setEncoding("utf8").on("data", take);
    const timer = setTimeout(() => {
      isHung = true;
      endGroup(child.pid);
    }, limit_ms);
    child.once("error", reject);
    // 'exit', not 'close': a stray grandchild that holds the pipes must not hold us.
    child.once("exit", (status) => {
      clearTimeout(timer);
      running.delete(child.pid);
      setTimeout(() => resolve({ status, isHung, output }), 50);
    });
    if (child.pid !== undefined) running.add(child.pid);
  });
}

/** Ends every command under way, for a run that is interrupted. */
export function endCommands() {
  for (const pid of running) endGroup(pid);
}

function endGroup(pid) {
  signalGroup(pid, "SIGTERM");
  setTimeout(() => signalGroup(pid, "SIGKILL"), graceMs).unref();
}

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error; // gone already: as wanted
  }
}
