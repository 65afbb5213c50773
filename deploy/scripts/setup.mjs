/** `npm run setup`: installs and builds what is missing, and nothing else. */
import { prepare } from "./prepare.mjs";
import { runScript } from "./repository.mjs";

await runScript(async () => {
  await prepare();
  process.stderr.write("setup: ready\n");
});
