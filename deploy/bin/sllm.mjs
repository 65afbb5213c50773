#!/usr/bin/env node
/** The `sllm` command: hands over to deploy/cli on Bun. Can be called through a symbolic link from anywhere. */
import { runCommandLine } from "../scripts/child.mjs";
import { runScript } from "../scripts/repository.mjs";

await runScript(async () => {
  process.exitCode = await runCommandLine(process.argv.slice(2), { interactive: true });
});
