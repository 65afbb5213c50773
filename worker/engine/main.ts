/**
 * The engine process: one model instance behind lines of JSON on standard input and output (protocol:
 * schema/cluster/engine.ts). Standard error is its log; it ends when its input ends.
 *
 * Its start is part of every cold start, so it imports no validation library: the only writer of its input is the
 * worker that spawned it, whose commands are typed, and the native library checks every range itself.
 */
import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineCommand, EngineMessage } from "../../schema/cluster/engine.ts";
import type { WireError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { LineSplitter } from "./ndjson.ts";
import { Session } from "./session.ts";

/** Writes messages in one piece; resolves when the system has taken them. Without a reader there is nothing to do. */
function write(messages: readonly EngineMessage[]): Promise<void> {
  const text = messages.map((message) => `${JSON.stringify(message)}\n`).join("");
  return new Promise((resolve) => {
    process.stdout.write(text, (error) => (error ? endAtOnce() : resolve()));
  });
}

async function fail(error: WireError): Promise<never> {
  await write([{ type: "failed", error }]);
  process.exit(1);
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set; the worker sets it for its engines`);
  return value;
}

async function openLibrary(): Promise<NativeLibrary> {
  try {
    return NativeLibrary.open(variable("SLLM_NATIVE_LIBRARY"), await runtimeLoader());
  } catch (error) {
    return fail({
      code: "native_unavailable",
      message: error instanceof Error ? error.message : String(error),
    });
  }
}

/** Ends the process from below: a thread that is inside the library cannot be interrupted. */
function endAtOnce(): void {
  process.kill(process.pid, "SIGKILL");
}

/** When the host runs out of memory, an engine is to go and not the worker, which serves all others. */
function offerFirst(): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", "500");
  } catch (error) {
    // Where the system has no such file, its choice stays as it is.
    process.stderr.write(`not offered to the system first: ${error}\n`);
  }
}

function close(session: Session): void {
  if (!session.close()) endAtOnce();
  setTimeout(endAtOnce, limits.engine_exit_ms / 2);
}

function listen(session: Session): void {
  const splitter = new LineSplitter();
  process.stdin.on("data", (chunk: Uint8Array) => {
    for (const line of splitter.push(chunk)) {
      const command: EngineCommand = JSON.parse(line);
      if (command.op === "exit") close(session);
      else session.handle(command);
    }
  });
  process.stdin.on("end", () => close(session));
}

process.stdout.on("error", endAtOnce);
process.on("uncaughtException", (error) => {
  process.stderr.write(`${error.stack ?? error.message}\n`);
  void fail({ code: "internal", message: error.message });
});

offerFirst();
// The thread starts while the main thread opens the library.
const pump = new Worker(new URL("./pump.ts", import.meta.url), { type: "module" });
const library = await openLibrary();
await write([{ type: "hello", pid: process.pid, abi_version: library.abiVersion() }]);
const session = new Session({
  library,
  pump,
  engine_libraries: variable("SLLM_ENGINE_LIBRARIES"),
  echo_token_us: Number(process.env.SLLM_ECHO_TOKEN_US ?? 0),
  write,
  onEnd: (exitCode) => process.exit(exitCode),
});
listen(session);
for (;;) {
  await sleep(limits.engine_beat_ms);
  await session.beat();
}
