/**
 * Brings a bare clone to the state in which it runs: tools checked, packages installed, native library built.
 * Says nothing and takes well under a second when there is nothing to do.
 */
import { installPackages } from "./packages.mjs";
import { root } from "./repository.mjs";
import { missingTools } from "./tools.mjs";

/**
 * Installs and builds what is missing. Throws an Error with a message for people.
 * @param {{ log?: (line: string) => void, variants?: readonly ("release" | "sanitize")[] }} [options]
 *   `variants`: the builds of the native library to bring up to date
 */
export async function prepare({ log = logLine, variants = ["release"] } = {}) {
  const problems = missingTools();
  if (problems.length > 0) throw new Error(problems.join("\n"));
  installPackages(root, log);
  // Imported only now: it may use packages that have just been installed.
  const { prepareHeaders, buildNative } = await import("./native.mjs");
  await prepareHeaders(root, log);
  for (const variant of variants) await buildNative(root, { variant }, log);
}

/** Progress goes to standard error: standard output belongs to the command that follows. */
function logLine(line) {
  process.stderr.write(`setup: ${line}\n`);
}
