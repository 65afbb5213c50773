/** Where the scripts work, and how they end: shared by every script that people start. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's folder, wherever it was started from. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Runs a script's main function; a failure becomes one readable message and exit status 1. */
export async function runScript(main) {
  try {
    await main();
  } catch (error) {
    for (const line of String(error?.message ?? error).split("\n")) process.stderr.write(`error: ${line}\n`);
    process.exitCode = 1;
  }
}
