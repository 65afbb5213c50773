/**
 * `npm run test:fault`: the long form of the fault tests of streams, 1,000 streams each, 64 at once. Runs on Node;
 * options go to `bun test`. SLLM_TEST_STREAMS changes the number, SLLM_TEST_SEED repeats a run.
 */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { findBun } from "../../deploy/scripts/bun.mjs";
import { prepare } from "../../deploy/scripts/prepare.mjs";
import { root } from "../../deploy/scripts/repository.mjs";

await prepare();
const files = ["./test/fault/streams.test.ts", "./test/fault/moves.test.ts"];
const run = spawnSync(findBun(root), ["test", ...files, ...process.argv.slice(2)], {
  cwd: root,
  env: { ...process.env, SLLM_TEST_LONG: "1" },
  stdio: "inherit",
});
process.exit(run.status ?? 1);
