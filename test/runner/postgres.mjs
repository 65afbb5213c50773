/** One Postgres server for the whole run: test/support/postgres.ts as a process, which ends when its input closes. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const startLimit_ms = 120_000;

/**
 * @param {string} bun path of Bun
 * @param {string} root the repository
 * @returns {Promise<{ url: string, stop(): Promise<void> }>}
 */
export function startPostgres(bun, root) {
  const child = spawn(bun, ["test/support/postgres.ts"], { cwd: root, stdio: ["pipe", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`the Postgres server of the tests ${why}`));
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      fail(`was not ready within ${startLimit_ms / 1000} s`);
    }, startLimit_ms);
    child.once("error", (error) => fail(`could not be started: ${error.message}`));
    void exited.then((status) => fail(`ended at its start (exit status ${status}); see above`));
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (!line.startsWith("{")) return;
      clearTimeout(timer);
      resolve({
        url: JSON.parse(line).url,
        stop: async () => {
          child.stdin.end();
          await exited;
        },
      });
    });
  });
}
