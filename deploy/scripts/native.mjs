// Prepares the headers of the inference library and builds the native library with CMake. Runs on plain Node 20 before
// anything else is installed but the npm dependencies: `node deploy/scripts/native.mjs [--sanitize] [target...]`.
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The npm package whose tarball carries a git bundle of the very library release the prebuilt binaries come from. */
const headerPackage = {
  name: "node-llama-cpp@3.22.1",
  integrity:
    "sha512-bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==",
  bundle: "package/llama/gitRelease.bundle",
};

/** Folder under native/vendor; the name tells the release, so another release never meets old headers. */
const headerFolder = "llama-0.5.0";

/** What the native library includes, as git pathspecs. */
const headerPaths = [
  "LICENSE",
  "include/*.h",
  "ggml/include/*.h",
  "ggml/src/*.h",
  "common/*.h",
  "common/jinja/*.h",
  "vendor/nlohmann/*.hpp",
  "vendor/hash/xxhash/*",
];

/** Tools and the Debian packages that bring them, for the one line a user reads when one is missing. */
const toolPackages = {
  npm: "npm",
  git: "git",
  tar: "tar",
  cmake: "cmake",
  "c++": "g++",
  make: "make",
};

/** A failure that is told to the user in one line, without a stack. */
export class NativeBuildError extends Error {}

/** Throws a NativeBuildError that names the Debian package when one of the tools is missing. */
export function requireTools(names) {
  for (const name of names) {
    const found = spawnSync(name, ["--version"], { stdio: "ignore" });
    if (found.error) {
      throw new NativeBuildError(
        `\`${name}\` is needed to build the native library and was not found: apt-get install ${toolPackages[name]}`,
      );
    }
  }
}

/** Runs a program; its output goes to log line by line, and its last lines into the error when it fails. */
export function run(program, args, { cwd, log }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    const tail = [];
    let stdout = "";
    const take = (chunk) => {
      for (const line of chunk.toString().split("\n")) {
        if (line.trim() === "") continue;
        tail.push(line);
        if (tail.length > 30) tail.shift();
        log(line);
      }
    };
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
      take(chunk);
    });
    child.stderr.on("data", take);
    child.on("error", reject);
    child.on("close", (status) => {
      if (status === 0) resolve(stdout);
      else {
        const what = `\`${program} ${args.slice(0, 3).join(" ")}\` failed with status ${status}`;
        reject(new NativeBuildError(`${what}:\n${tail.join("\n")}`));
      }
    });
  });
}

async function integrityOf(path) {
  const hash = createHash("sha512");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return `sha512-${hash.digest("base64")}`;
}

/** Downloads the package and leaves its verified git bundle in `folder`. Returns the path of the bundle. */
export async function fetchBundle(folder, log) {
  const quiet = () => {};
  log(`fetching the source of the inference library (${headerPackage.name})`);
  await run(
    "npm",
    ["pack", headerPackage.name, "--pack-destination", folder, "--ignore-scripts", "--silent"],
    {
      cwd: folder,
      log: quiet,
    },
  );
  const tarball = (await readdir(folder)).find((name) => name.endsWith(".tgz"));
  if (tarball === undefined) throw new NativeBuildError(`npm pack left no tarball of ${headerPackage.name}`);
  const integrity = await integrityOf(join(folder, tarball));
  if (integrity !== headerPackage.integrity) {
    throw new NativeBuildError(
      `the tarball of ${headerPackage.name} is not the one this project was built with: ` +
        `expected ${headerPackage.integrity}, found ${integrity}`,
    );
  }
  await run("tar", ["-xzf", tarball, headerPackage.bundle], { cwd: folder, log: quiet });
  return join(folder, headerPackage.bundle);
}

/**
 * Puts the headers of the inference library into native/vendor, once: the folder appears complete or not at all, and a
 * second call returns at once.
 * @param {string} root the repository
 * @param {(line: string) => void} log
 * @returns {Promise<string>} the folder
 */
export async function prepareHeaders(root, log = () => {}) {
  const vendor = join(root, "native", "vendor");
  const target = join(vendor, headerFolder);
  if (existsSync(join(target, ".complete"))) return target;
  requireTools(["npm", "git", "tar"]);
  const work = join(vendor, `.fetch-${randomBytes(6).toString("hex")}`);
  const tree = join(work, "tree");
  await mkdir(tree, { recursive: true });
  try {
    const bundle = await fetchBundle(work, log);
    const quiet = { cwd: work, log: () => {} };
    await run("git", ["clone", "--quiet", "--bare", bundle, "release.git"], quiet);
    const checkout = ["--git-dir=release.git", `--work-tree=${tree}`, "checkout", "--force", "HEAD", "--"];
    await run("git", [...checkout, ...headerPaths], quiet);
    await writeFile(join(tree, ".complete"), `${headerPackage.name}\n${headerPackage.integrity}\n`);
    await rm(target, { recursive: true, force: true });
    await rename(tree, target).catch((error) => {
      // Another process may have put the same headers there in the meantime.
      if (!existsSync(join(target, ".complete"))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return target;
}

/** Names, sizes and times of all sources: equal fingerprints mean that a build would find nothing to do. */
function fingerprint(native, targets) {
  const hash = createHash("sha256").update(JSON.stringify([targets, process.arch]));
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (!/^(build.*|vendor|bun-ffi-helpers|node_modules)$/.test(entry.name)) visit(path);
      } else if (/\.(cc|h|c|map)$|^CMakeLists\.txt$/.test(entry.name)) {
        const { mtimeMs, size } = statSync(path);
        hash.update(`${path} ${mtimeMs} ${size}\n`);
      }
    }
  };
  visit(native);
  // The tests of devices are built where their libraries have been fetched.
  hash.update(String(existsSync(join(native, "vendor", "engines", "linux-x64-vulkan", ".complete"))));
  return hash.digest("hex");
}

function upToDate(build, stamp, targets) {
  const file = join(build, ".built");
  if (!existsSync(join(build, "libsllm.so")) || !existsSync(file)) return false;
  const known = JSON.parse(readFileSync(file, "utf8"));
  return known[targets.join(" ")] === stamp;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Runs work while no other process builds in the same folder; a lock that a dead process left is taken over. */
async function locked(build, work) {
  const file = join(build, ".lock");
  for (;;) {
    try {
      await writeFile(file, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const holder = Number(await readFile(file, "utf8").catch(() => ""));
    // An empty file belongs to a process that is just writing its number.
    if (holder > 0 && !isAlive(holder)) await rm(file, { force: true });
    else await sleep(100);
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

/**
 * Builds the native library into native/build, or native/build-sanitize for the variant with AddressSanitizer and
 * UndefinedBehaviorSanitizer. Does nothing when no source changed since the last build of the same targets.
 * @param {string} root the repository
 * @param {{ variant?: "release" | "sanitize", targets?: readonly string[] }} options targets: CMake targets; the two
 *   shared libraries when absent, ["all"] with the tests
 * @param {(line: string) => void} log
 * @returns {Promise<{ build: string, built: boolean }>} the build folder, and whether anything was built
 */
export async function buildNative(root, options = {}, log = () => {}) {
  const variant = options.variant ?? "release";
  const targets = options.targets ?? ["sllm", "sllm_llama"];
  const native = join(root, "native");
  const build = join(native, variant === "sanitize" ? "build-sanitize" : "build");
  const headers = await prepareHeaders(root, log);
  const stamp = fingerprint(native, targets);
  if (upToDate(build, stamp, targets)) return { build, built: false };
  requireTools(["cmake", "c++", "make"]);
  await mkdir(build, { recursive: true });
  return await locked(build, async () => {
    // Another process may have built the same while this one waited.
    if (upToDate(build, stamp, targets)) return { build, built: false };
    log(`building the native library (${variant})`);
    await compile({ native, build, headers, variant, targets, log });
    const file = join(build, ".built");
    const known = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
    await writeFile(file, JSON.stringify({ ...known, [targets.join(" ")]: stamp }));
    return { build, built: true };
  });
}

/** CMake refuses a build folder that was copied or moved with its sources: such a one begins anew. */
async function forgetMovedBuild(native, build) {
  const cache = join(build, "CMakeCache.txt");
  const text = await readFile(cache, "utf8").catch(() => "");
  const source = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(text)?.[1];
  if (source === undefined || source === native) return;
  for (const name of ["CMakeCache.txt", "CMakeFiles"]) await rm(join(build, name), { recursive: true });
}

async function compile({ native, build, headers, variant, targets, log }) {
  const configure = [
    ["-S", native, "-B", build, "-G", "Unix Makefiles"],
    [`-DSLLM_LLAMA_HEADERS=${headers}`, `-DSLLM_SANITIZE=${variant === "sanitize" ? "ON" : "OFF"}`],
  ].flat();
  await forgetMovedBuild(native, build);
  await run("cmake", configure, { cwd: native, log });
  const make = ["--build", build, "--parallel", String(availableParallelism()), "--target", ...targets];
  await run("cmake", make, { cwd: native, log });
}

async function main() {
  const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
  const args = process.argv.slice(2);
  const unknown = args.find((arg) => arg.startsWith("-") && arg !== "--sanitize");
  if (unknown !== undefined) throw new NativeBuildError(`unknown option ${unknown}`);
  const named = args.filter((arg) => !arg.startsWith("-"));
  const options = {
    variant: args.includes("--sanitize") ? "sanitize" : "release",
    ...(named.length > 0 ? { targets: named } : {}),
  };
  const { build, built } = await buildNative(root, options, (line) => process.stderr.write(`${line}\n`));
  process.stdout.write(`${build}${built ? "" : " is up to date"}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  main().catch((error) => {
    process.stderr.write(`${error instanceof NativeBuildError ? error.message : error.stack}\n`);
    process.exitCode = 1;
  });
}
