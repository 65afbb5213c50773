/**
 * Engine libraries beyond those of package.json: `node deploy/scripts/engines.mjs native|cuda|vulkan`. `native`
 * compiles those for this processor anew; `cuda` and `vulkan` fetch those for discrete devices, which are not among
 * the packages because most machines have no use for their size: a hundred megabytes and more.
 */
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { buildProcessorEngines } from "./processor-engines.mjs";
import { root, runScript } from "./repository.mjs";

/** Packages of the release that the native library is built for, and what their tarballs must be. */
const packages = {
  cuda: {
    name: "@node-llama-cpp/linux-x64-cuda@3.22.1",
    integrity:
      "sha512-8rQCjyNNLZJUFit+YpjwlC4hwkKgOMIkB2wuycKBf8NU2O3ySKbiWZQ8aw9ku2nUTXjSnUIrE6KB88itduTBuA==",
  },
  vulkan: {
    name: "@node-llama-cpp/linux-x64-vulkan@3.22.1",
    integrity:
      "sha512-bBxqU+JOcBu1nb5Qj2zcMci+JByT1E8EajHvYodyNfVIPkEhXh+/HMwR1/BT7xP08YK0hks+kM8fglER0P8JEg==",
  },
};

/**
 * Where a kind's libraries lie once fetched: beside the headers, outside version control.
 * @param {string} repository
 * @param {string} kind
 */
export function engineFolder(repository, kind) {
  return join(repository, "native", "vendor", "engines", `linux-x64-${kind}`);
}

/**
 * Brings the libraries of a kind, once: the folder appears complete or not at all, and a second call returns at once.
 * Throws an Error with a message for people.
 * @param {string} repository
 * @param {"cuda" | "vulkan"} kind
 * @param {(line: string) => void} log
 * @returns {Promise<string>} the folder
 */
export async function fetchEngines(repository, kind, log) {
  const target = engineFolder(repository, kind);
  if (existsSync(join(target, ".complete"))) return target;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`there are engine libraries for ${kind} for Linux on x64 only`);
  }
  const { name, integrity } = packages[kind];
  log(`fetching the engine libraries for ${kind} (${name})`);
  const parent = join(repository, "native", "vendor", "engines");
  const work = join(parent, `.fetch-${randomBytes(6).toString("hex")}`);
  await mkdir(work, { recursive: true });
  try {
    run("npm", ["pack", name, "--pack-destination", work, "--ignore-scripts", "--silent"], work);
    const tarball = (await readdir(work)).find((file) => file.endsWith(".tgz"));
    if (tarball === undefined) throw new Error(`npm pack left no tarball of ${name}`);
    const found = `sha512-${createHash("sha512")
      .update(await readFile(join(work, tarball)))
      .digest("base64")}`;
    if (found !== integrity) throw new Error(`${name} is another: expected ${integrity}, found ${found}`);
    run("tar", ["-xzf", tarball], work);
    const libraries = join(work, "package", "bins", `linux-x64-${kind}`);
    await writeFile(join(libraries, ".complete"), `${name}\n${integrity}\n`);
    await rm(target, { recursive: true, force: true });
    await rename(libraries, target).catch((error) => {
      // Another process may have put the same libraries there in the meantime.
      if (!existsSync(join(target, ".complete"))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return target;
}

function run(program, args, cwd) {
  const { error, status } = spawnSync(program, args, { cwd, stdio: ["ignore", "ignore", "inherit"] });
  if (error || status !== 0)
    throw new Error(`${program} ${args[0]} failed: ${error?.message ?? `status ${status}`}`);
}

async function main() {
  const kinds = process.argv.slice(2);
  const known = ["native", ...Object.keys(packages)];
  if (kinds.length === 0 || kinds.some((kind) => !known.includes(kind))) {
    throw new Error(`usage: node deploy/scripts/engines.mjs ${known.join("|")}`);
  }
  for (const kind of kinds) {
    const log = (line) => process.stderr.write(`${line}\n`);
    const folder =
      kind === "native" ? await buildProcessorEngines(root, log) : await fetchEngines(root, kind, log);
    process.stdout.write(`${folder}\n`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await runScript(main);
