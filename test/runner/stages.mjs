/** The stages of `npm test`, in order: cheap ones first, so that a typing error is not found after ten minutes. */
import { readdirSync } from "node:fs";
import { join, relative } from "node:path";

const minute_ms = 60_000;

/**
 * A stage runs one command and yields results: by its exit status alone (`check`), by CTest (`ctest`, after its
 * build) or by `bun test` on files. `limit_ms` is several times what a slow machine with two cores needs; a stage
 * that reaches it hangs. `test_ms` is Bun's bound for a test that sets none of its own.
 */
export const stages = [
  { name: "types", kind: "check", command: ["tsc", "--noEmit"], limit_ms: 3 * minute_ms },
  { name: "lint", kind: "check", command: ["biome", "check", "."], limit_ms: minute_ms },
  { name: "tidy", kind: "bun", folders: ["test/tidy"], test_ms: 30_000, limit_ms: 2 * minute_ms },
  { name: "native", kind: "ctest", variant: "release", limit_ms: 8 * minute_ms },
  { name: "native-sanitize", kind: "ctest", variant: "sanitize", limit_ms: 8 * minute_ms },
  {
    name: "unit",
    kind: "bun",
    folders: [
      "schema",
      "gateway",
      "worker",
      "native",
      "deploy",
      "test/support",
      "test/runner",
      "test/models",
      "test/bench",
    ],
    test_ms: 10_000,
    limit_ms: 4 * minute_ms,
  },
  { name: "contract", kind: "bun", folders: ["test/contract"], test_ms: 60_000, limit_ms: 4 * minute_ms },
  { name: "fuzz", kind: "bun", folders: ["test/fuzz"], test_ms: 60_000, limit_ms: 4 * minute_ms },
  {
    name: "integration",
    kind: "bun",
    folders: ["test/integration"],
    test_ms: 120_000,
    limit_ms: 6 * minute_ms,
  },
  { name: "e2e", kind: "bun", folders: ["test/e2e"], test_ms: 120_000, limit_ms: 6 * minute_ms },
  { name: "fault", kind: "bun", folders: ["test/fault"], test_ms: 120_000, limit_ms: 6 * minute_ms },
];

/** Whole run, however many stages are slow; 17 to 19 minutes is what two cores need that do nothing else. */
export const runLimit_ms = 40 * minute_ms;

/**
 * The stages to run, each of kind `bun` with its files. A filter picks the stage of that name (and its variants,
 * `native-...`), or the test files whose path contains it.
 * @param {string} root the repository
 * @param {string | undefined} filter
 */
export function selectStages(root, filter) {
  const picked = stages.map((stage) => {
    const isNamed = filter === undefined || stage.name === filter || stage.name.startsWith(`${filter}-`);
    if (stage.kind !== "bun") return isNamed ? stage : null;
    const files = stage.folders.flatMap((folder) => testFiles(root, folder));
    const wanted = isNamed ? files : files.filter((file) => file.includes(filter));
    return wanted.length === 0 ? null : { ...stage, files: wanted };
  });
  return picked.filter((stage) => stage !== null);
}

/** Paths of the folder's test files relative to the repository, in a fixed order. */
function testFiles(root, folder) {
  const path = join(root, folder);
  const entries = readdirIfThere(path);
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .filter((file) => !/(^|\/)(build[^/]*|vendor|node_modules)\//.test(file))
    .sort();
}

function readdirIfThere(path) {
  try {
    return readdirSync(path, { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code === "ENOENT") return []; // a kind of test that does not exist yet
    throw error;
  }
}
