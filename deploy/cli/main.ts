/** The `sllm` command on Bun. Commands write results to standard output, everything else to standard error. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { adapter } from "./commands/adapter.ts";
import { chat } from "./commands/chat.ts";
import { convert } from "./commands/convert.ts";
import { demo } from "./commands/demo.ts";
import { deploy } from "./commands/deploy.ts";
import { drain } from "./commands/drain.ts";
import { explain } from "./commands/explain.ts";
import { ls } from "./commands/ls.ts";
import { migrate } from "./commands/migrate.ts";
import { pin, unpin } from "./commands/pin.ts";
import { plan } from "./commands/plan.ts";
import { rm } from "./commands/rm.ts";
import { simulate } from "./commands/simulate.ts";
import { up } from "./commands/up.ts";
import { verify } from "./commands/verify.ts";
import { run } from "./run.ts";
import { root } from "./settings/surroundings.ts";
import { onReaderGone, printLine, printNote } from "./terminal/output.ts";

const commands = [
  up,
  convert,
  deploy,
  adapter,
  ls,
  rm,
  chat,
  explain,
  pin,
  unpin,
  verify,
  migrate,
  drain,
  simulate,
  plan,
  demo,
];
const packageFile: unknown = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { version } = z.object({ version: z.string() }).parse(packageFile);

// `up` serves on without a reader; any other command has nothing left to do. Leaving closes its connection, which
// ends the answer at the gateway.
onReaderGone(() => {
  if (process.argv[2] !== up.name) process.exit();
});
const status = await run(commands, version, process.argv.slice(2), { out: printLine, err: printNote });
// Output to a pipe may still be on its way; leaving by exitCode lets it arrive.
process.exitCode = status;
