/** Engine libraries that were compiled here are found by the programs that want them. */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { processorEngineFolder } from "../../deploy/scripts/processor-engines.mjs";
import { processorLibraries } from "../../worker/checkpoints/import/native-paths.ts";

test("libraries compiled for this processor are taken once they are complete, the package's before", () => {
  const repository = mkdtempSync(join(tmpdir(), "sllm-engines-"));
  try {
    const built = processorEngineFolder(repository);
    mkdirSync(built, { recursive: true });
    const before = processorLibraries(repository);
    expect(before).toStartWith(join(repository, "node_modules"));
    writeFileSync(join(built, ".complete"), "");
    expect(processorLibraries(repository)).toBe(built);
  } finally {
    rmSync(repository, { recursive: true, force: true });
  }
});
