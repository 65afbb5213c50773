/**
 * `npm start`: sets up what is missing and runs `sllm up` until it is told to stop. Flags after `--` go to `sllm up`.
 * Exit status: 0 after Ctrl-C or SIGTERM, 1 when something failed.
 */
import { runCommandLine } from "./child.mjs";
import { prepare } from "./prepare.mjs";
import { runScript } from "./repository.mjs";

await runScript(async () => {
  await prepare();
  process.exitCode = await runCommandLine(["up", ...process.argv.slice(2)]);
});
