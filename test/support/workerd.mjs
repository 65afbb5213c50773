/**
 * Runs a bundle of the gateway in workerd, by miniflare under Node: `node workerd.mjs <bundle>`. Its variables are
 * those of this process; the ready line and the end are those of every gateway process.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { Log, LogLevel, Miniflare } from "miniflare";

class StderrLog extends Log {
  log(message) {
    process.stderr.write(`${message}\n`);
  }
}

const bundle = process.argv[2];
const variables = Object.entries(process.env).filter(([name]) => name.startsWith("SLLM_"));
const miniflare = new Miniflare({
  name: "gateway",
  modules: [{ type: "ESModule", path: "gateway.js", contents: readFileSync(bundle, "utf8") }],
  compatibilityDate: "2026-04-01",
  compatibilityFlags: ["nodejs_compat", "enable_request_signal"],
  durableObjects: { GATEWAY: "GatewayObject" },
  bindings: Object.fromEntries(variables),
  host: "127.0.0.1",
  port: 0,
  log: new StderrLog(LogLevel.INFO),
  handleRuntimeStdio: (stdout, stderr) => {
    stdout.pipe(process.stderr);
    stderr.pipe(process.stderr);
  },
});
const url = await miniflare.ready;
process.stdout.write(`${JSON.stringify({ event: "ready", role: "gateway", url: url.origin })}\n`);

const end = async () => {
  await miniflare.dispose();
  process.exit(0);
};
process.once("SIGTERM", end);
process.once("SIGINT", end);
process.stdin.once("end", end).once("error", end).resume();
