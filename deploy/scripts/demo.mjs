/**
 * `npm run demo`: starts the system on a free port with a temporary data folder, sends one streaming request to the
 * cold sample model, shows the tokens and where the time went, and leaves nothing behind. `-- --json` for machines.
 */
import { runCommandLine } from "./child.mjs";
import { prepare } from "./prepare.mjs";
import { runScript } from "./repository.mjs";

await runScript(async () => {
  await prepare();
  process.exitCode = await runCommandLine(["demo", ...process.argv.slice(2)]);
});
