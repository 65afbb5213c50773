/** The suite for machines with a GPU, where there is none: it says so and changes nothing. */
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { repositoryRoot } from "../support/processes.ts";

const script = path.join(repositoryRoot, "test/gpu/run.sh");

/** Runs it where only these programs are found, and those of a bare shell. */
function run(args: readonly string[], programs: Readonly<Record<string, string>> = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-gpu-"));
  try {
    for (const tool of ["bash", "dirname", "head", "sed", "tr"]) {
      symlinkSync(`/usr/bin/${tool}`, path.join(folder, tool));
    }
    for (const [name, text] of Object.entries(programs)) {
      writeFileSync(path.join(folder, name), `#!/bin/bash\n${text}\n`, { mode: 0o755 });
    }
    const env = { PATH: folder };
    const { status, stdout, stderr } = spawnSync("/bin/bash", [script, ...args], { env, encoding: "utf8" });
    return { status, out: stdout, err: stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("without a GPU, or with a driver that finds none, it is skipped with the reason as JSON", () => {
  const without = run([]);
  expect([without.status, JSON.parse(without.out)]).toEqual([
    77,
    { skipped: "no NVIDIA GPU: nvidia-smi was not found" },
  ]);
  const empty = run([], { "nvidia-smi": "exit 9" });
  expect([empty.status, JSON.parse(empty.out)]).toEqual([
    77,
    { skipped: "no NVIDIA GPU: nvidia-smi lists none" },
  ]);
});

test("with a GPU but without a build tool it is skipped and names the tool", () => {
  const { status, out } = run([], { "nvidia-smi": "echo 'NVIDIA X, 9.0, 1'", nvcc: "" });
  expect([status, JSON.parse(out).skipped]).toEqual([77, expect.stringContaining("cmake was not found")]);
});

test.each(["--arch sm_90", "--rounds 0", "--folder /nonexistent", "--fast"])(
  "%s is refused with the usage",
  (args) => {
    const { status, err } = run(args.split(" "));
    expect([status, err]).toEqual([2, expect.stringContaining("usage: bash test/gpu/run.sh")]);
  },
);
