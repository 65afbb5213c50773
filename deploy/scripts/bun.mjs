/**
 * Finds the executable of Bun that package.json pins. npm may have been told not to run install scripts; then the
 * binary still lies in the platform's package.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

/** Before its install script ran, `bun/bin/bun.exe` is a text of some hundred bytes. */
const executableBytesMin = 1024 * 1024;

/**
 * Path of Bun's executable, or null when it is not installed.
 * @param {string} root the repository
 */
export function findBun(root) {
  const modules = join(root, "node_modules");
  const candidates = [join(modules, "bun", "bin", "bun.exe")];
  const platforms = join(modules, "@oven");
  if (existsSync(platforms)) {
    for (const name of readdirSync(platforms)) candidates.push(join(platforms, name, "bin", "bun"));
  }
  return candidates.find(isExecutableFile) ?? null;
}

function isExecutableFile(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() === true && stat.size >= executableBytesMin && (stat.mode & 0o111) !== 0;
}
