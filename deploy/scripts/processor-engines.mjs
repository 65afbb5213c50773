/**
 * Engine libraries whose code for this machine's processor was compiled here: `node deploy/scripts/engines.mjs native`.
 * The npm package's own come from a compiler that keeps the sums of its matrix kernels in memory instead of registers;
 * with a newer one prompts are read up to twice as fast. One library of the same release is built, the others are those
 * of the package.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { fetchBundle, requireTools, run } from "./native.mjs";

/** Of the package that the other libraries are copied from; the folder's name tells the release. */
const release = "0.5.0";

/**
 * Where they lie once built, outside version control.
 * @param {string} repository
 */
export function processorEngineFolder(repository) {
  return join(repository, "native", "vendor", "engines", `linux-x64-native-${release}`);
}

const options = [
  "-DCMAKE_BUILD_TYPE=Release",
  // The package's variants, compiled for the same sets of instructions: they say themselves whether they can run.
  ...["-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON"],
  // As the package's: its own pool of threads.
  "-DGGML_OPENMP=OFF",
  // Finds the package's libggml-base.so beside it, under the very name that is loaded already.
  ...["-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON", "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON"],
  ...["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=OFF"],
  ...["-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_OPENSSL=OFF"],
];

/**
 * Builds them, once: the folder appears complete or not at all, and a second call returns at once. Takes about a minute
 * of processor time. Throws an Error with a message for people.
 * @param {string} repository
 * @param {(line: string) => void} log
 * @returns {Promise<string>} the folder
 */
export async function buildProcessorEngines(repository, log) {
  const target = processorEngineFolder(repository);
  if (existsSync(join(target, ".complete"))) return target;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error("there are engine libraries for Linux on x64 only");
  }
  requireTools(["npm", "git", "tar", "cmake", "c++", "make"]);
  const parent = join(repository, "native", "vendor", "engines");
  const work = join(parent, `.build-${randomBytes(6).toString("hex")}`);
  const folder = join(work, "whole");
  await mkdir(folder, { recursive: true });
  try {
    const libraries = join(repository, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");
    for (const name of await readdir(libraries)) {
      if (name.endsWith(".so")) await cp(join(libraries, name), join(folder, name));
    }
    const variant = await bestVariant(folder, work);
    log(`building ${variant} for this processor`);
    const built = await buildVariant(variant, work, log);
    const compiler = (await run("c++", ["-dumpfullversion"], { cwd: work, log: () => {} })).trim();
    // Named after what compiled it: engines whose code differs are not equal to the last bit.
    await rm(join(folder, `lib${variant}.so`));
    await cp(built, join(folder, `lib${variant}-c++${compiler}.so`));
    await writeFile(join(folder, ".complete"), `${release} ${variant} c++ ${compiler}\n`);
    await rename(folder, target).catch((error) => {
      // Another process may have put the same libraries there in the meantime.
      if (!existsSync(join(target, ".complete"))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return target;
}

/** The variant that suits this processor best, as its CMake target: ggml-cpu-<name>. */
async function bestVariant(folder, work) {
  const quiet = { cwd: work, log: () => {} };
  const source = join(import.meta.dirname, "cpu_scores.c");
  await run("c++", ["-x", "c", source, "-o", "cpu-scores", "-ldl"], quiet);
  const names = (await readdir(folder)).filter((name) => name.startsWith("libggml-cpu-"));
  const scores = await run(
    join(work, "cpu-scores"),
    names.map((name) => join(folder, name)),
    quiet,
  );
  const best = scores
    .trim()
    .split("\n")
    .map((line) => ({ score: Number.parseInt(line, 10), path: line.slice(line.indexOf(" ") + 1) }))
    .reduce((a, b) => (b.score > a.score ? b : a));
  if (best.score === 0) throw new Error("no variant of the engine libraries runs on this processor");
  return basename(best.path, ".so").slice("lib".length);
}

async function buildVariant(variant, work, log) {
  const bundle = await fetchBundle(work, log);
  const quiet = { cwd: work, log: () => {} };
  await run("git", ["clone", "--quiet", bundle, "source"], quiet);
  await run("cmake", ["-S", "source", "-B", "build", "-G", "Unix Makefiles", ...options], quiet);
  const jobs = String(availableParallelism());
  await run("cmake", ["--build", "build", "--parallel", jobs, "--target", variant], quiet);
  return join(work, "build", "bin", `lib${variant}.so`);
}
