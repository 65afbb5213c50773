// Packs the sources that test/gpu/run.sh builds into the git-ignored test/.cache/gpu/source.tar.gz (6 MB), once:
// `node test/gpu/prepare.mjs`. Needs the npm registry; the machine with the GPU then needs no network.
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { fetchBundle, requireTools, run } from "../../deploy/scripts/native.mjs";
import { root, runScript } from "../../deploy/scripts/repository.mjs";

/** All that libllama, libllama-common and the backends are built from. */
const paths = ["CMakeLists.txt", "LICENSE", "cmake", "common", "ggml", "include", "src", "vendor"];

/**
 * Makes the archive if it is not there yet; it appears complete or not at all.
 * @param {(line: string) => void} log
 * @returns {Promise<string>} its path
 */
export async function packSource(log = () => {}) {
  const folder = join(root, "test/.cache/gpu");
  const archive = join(folder, "source.tar.gz");
  if (existsSync(archive)) return archive;
  requireTools(["npm", "git", "tar"]);
  const work = join(folder, `.pack-${randomBytes(6).toString("hex")}`);
  await mkdir(work, { recursive: true });
  const quiet = { cwd: work, log: () => {} };
  try {
    const bundle = await fetchBundle(work, log);
    await run("git", ["clone", "--quiet", "--bare", bundle, "release.git"], quiet);
    const git = ["--git-dir=release.git", "archive", "--format=tar.gz", "--output=source.tar.gz", "HEAD"];
    await run("git", [...git, "--", ...paths], quiet);
    await rename(join(work, "source.tar.gz"), archive);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return archive;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await runScript(async () => {
    console.log(await packSource((line) => process.stderr.write(`${line}\n`)));
  });
}
