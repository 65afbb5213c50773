/**
 * Checks that the tools a bare clone needs are there, and says in one line for each missing one how to get it.
 * Runs on Node alone, before anything is installed.
 */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Oldest Node whose APIs the scripts use (package.json "engines" says the same). */
const nodeMajor = 20;

const apt = (name) => `install it, e.g. on Debian or Ubuntu: apt-get install ${name}`;

const tools = [
  { command: "npm", help: "it comes with Node 20 or newer, https://nodejs.org" },
  { command: "git", help: apt("git") },
  { command: "g++", help: apt("g++") },
  { command: "cmake", help: apt("cmake") },
  { command: "make", help: apt("make") },
];

/**
 * One line per missing tool; empty when all are there.
 * @param {{ nodeVersion?: string, hasCommand?: (command: string) => boolean }} [machine] replaceable for tests
 */
export function missingTools({ nodeVersion = process.versions.node, hasCommand = isOnPath } = {}) {
  const problems = [];
  if (Number.parseInt(nodeVersion, 10) < nodeMajor) {
    problems.push(`Node ${nodeMajor} or newer is needed, this is ${nodeVersion}: see https://nodejs.org`);
  }
  for (const { command, help } of tools) {
    if (!hasCommand(command)) problems.push(`'${command}' is missing: ${help}`);
  }
  return problems;
}

/** Looks the command up without running it: starting npm alone would take a third of a second. */
function isOnPath(command) {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return folder !== "";
    } catch {
      return false; // not there, or not ours to run: the same to us
    }
  });
}
