/**
 * `npm run bench -- <name> [--json]`: installs and builds what is missing, then runs one benchmark under Bun.
 * Every benchmark measures its own ceiling and its peers in the same run and prints ratios.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { findBun } from "../../deploy/scripts/bun.mjs";
import { buildNative } from "../../deploy/scripts/native.mjs";
import { prepare } from "../../deploy/scripts/prepare.mjs";
import { buildProcessorEngines } from "../../deploy/scripts/processor-engines.mjs";
import { root, runScript } from "../../deploy/scripts/repository.mjs";

const folder = path.dirname(fileURLToPath(import.meta.url));
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".bench.ts"))
  .map((file) => file.slice(0, -".bench.ts".length));

/** The libraries, and the programs that measure ceilings and peers. */
const targets = [
  ...["sllm", "sllm_llama"],
  ...[
    "sllm_bench_plain",
    "sllm_bench_decode",
    "sllm_bench_ceiling",
    "sllm_bench_ablation",
    "sllm_bench_adapter",
  ],
];

const [name, ...options] = process.argv.slice(2);
const script = path.join(folder, `${name}.bench.ts`);
if (!name || !existsSync(script)) {
  console.error(`usage: npm run bench -- <name> [--json]\nbenchmarks: ${names.join(", ")}`);
  process.exit(2);
}
await runScript(async () => {
  await prepare();
  const log = (line) => process.stderr.write(`setup: ${line}\n`);
  await buildNative(root, { targets }, log);
  // The peers' code is compiled for this processor as well.
  await buildProcessorEngines(root, log);
  const { status } = spawnSync(findBun(root), [script, ...options], { cwd: root, stdio: "inherit" });
  process.exitCode = status ?? 1;
});
