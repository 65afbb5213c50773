/** What a benchmark ran on, for the record. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import path from "node:path";
import { engineLibrariesPath } from "../support/native.ts";
import { repositoryRoot } from "../support/processes.ts";

export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memory_bytes: number;
  readonly kernel: string;
  readonly disk: string;
  readonly file_system: string;
  readonly commit: string;
  /** Folder of the engine libraries, ours and those that peers load. */
  readonly engine_libraries: string;
  readonly load_average: readonly number[];
}

/** Facts of this machine and of the source that is measured. */
export function machine(): Machine {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, at = "/-"]) => repositoryRoot.startsWith(at))
    .sort(([, a = ""], [, b = ""]) => b.length - a.length)[0];
  const commit = spawnSync("git", ["describe", "--always", "--dirty", "--exclude=*"], {
    cwd: repositoryRoot,
    encoding: "utf8",
  });
  return {
    cores: cpus().length,
    processor: cpus()[0]?.model.trim() ?? "",
    memory_bytes: totalmem(),
    kernel: release(),
    disk: mount?.[0] ?? "",
    file_system: mount?.[2] ?? "",
    commit: commit.status === 0 ? commit.stdout.trim() : "",
    engine_libraries: path.relative(repositoryRoot, engineLibrariesPath),
    load_average: loadavg(),
  };
}
