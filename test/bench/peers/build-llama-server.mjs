// Builds the reference server of the inference library, a peer of the benchmarks, from the very release that the
// engine libraries come from: CPU only, for this processor, without its web page. Once, into the git-ignored
// test/.cache/llama-server: `node test/bench/peers/build-llama-server.mjs` (10 to 30 minutes on two cores).
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { fetchBundle, requireTools, run } from "../../../deploy/scripts/native.mjs";
import { root, runScript } from "../../../deploy/scripts/repository.mjs";

const folder = join(root, "test/.cache/llama-server");

/** The program; its libraries lie beside it. */
export const llamaServer = join(folder, "llama-server-0.5.0", "llama-server");

const options = [
  "-DCMAKE_BUILD_TYPE=Release",
  // As fast as this processor allows: every instruction set it has, chosen by the compiler.
  "-DGGML_NATIVE=ON",
  // The folder is moved to its place once it is whole.
  "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",
  "-DLLAMA_BUILD_TESTS=OFF",
  "-DLLAMA_BUILD_EXAMPLES=OFF",
  "-DLLAMA_BUILD_APP=OFF",
  "-DLLAMA_BUILD_UI=OFF",
  "-DLLAMA_USE_PREBUILT_UI=OFF",
  // Models are files of this machine.
  "-DLLAMA_OPENSSL=OFF",
];

/**
 * Builds it if it is not there yet. The folder appears complete or not at all.
 * @param {(line: string) => void} log
 * @returns {Promise<string>} the program's path
 */
export async function buildLlamaServer(log = () => {}) {
  if (existsSync(llamaServer)) return llamaServer;
  requireTools(["npm", "git", "tar", "cmake", "c++", "make"]);
  const work = join(folder, `.build-${randomBytes(6).toString("hex")}`);
  await mkdir(work, { recursive: true });
  const quiet = { cwd: work, log: () => {} };
  try {
    const bundle = await fetchBundle(work, log);
    await run("git", ["clone", "--quiet", bundle, "source"], quiet);
    log("building llama-server");
    await run("cmake", ["-S", "source", "-B", "build", "-G", "Unix Makefiles", ...options], quiet);
    const jobs = String(availableParallelism());
    await run("cmake", ["--build", "build", "--parallel", jobs, "--target", "llama-server"], {
      cwd: work,
      log: (line) => {
        if (/^\[\s*\d+%\]/.test(line)) log(line);
      },
    });
    await place(join(work, "build", "bin"), join(work, "whole"));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return llamaServer;
}

/** Takes the program and its libraries, without whatever else was built, and renames them into their place. */
async function place(built, whole) {
  await mkdir(whole);
  for (const name of await readdir(built)) {
    if (name !== "llama-server" && !/\.so(\.|$)/.test(name)) continue;
    await cp(join(built, name), join(whole, name), { verbatimSymlinks: true });
  }
  await writeFile(join(whole, "options"), `${options.join("\n")}\n`);
  const target = join(llamaServer, "..");
  await rm(target, { recursive: true, force: true });
  await rename(whole, target);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await runScript(async () => {
    console.log(await buildLlamaServer((line) => process.stderr.write(`${line}\n`)));
  });
}
