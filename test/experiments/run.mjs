/** `npm run experiments -- [names]`: installs what is missing and runs experiments of the simulator under Bun. */
import { spawnSync } from "node:child_process";
import { findBun } from "../../deploy/scripts/bun.mjs";
import { installPackages } from "../../deploy/scripts/packages.mjs";
import { root, runScript } from "../../deploy/scripts/repository.mjs";

await runScript(async () => {
  installPackages(root, (line) => process.stderr.write(`setup: ${line}\n`));
  const args = ["test/experiments/main.ts", ...process.argv.slice(2)];
  const { status } = spawnSync(findBun(root), args, { cwd: root, stdio: "inherit" });
  process.exitCode = status ?? 1;
});
