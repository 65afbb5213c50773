/** Why an instance failed, in words for the outside: codes of the system, no paths of this host. Pure. */
import { type FailureName, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { SllmError, type WireError } from "../../schema/error.ts";
import { libraryWords } from "../library-words.ts";
import { loadErrorCode } from "../status-codes.ts";
import type { EngineEnd } from "./engine-process.ts";

/** Lines of the engine's log that go into a message: the end of a longer one says most. */
const quotedLines = 8;

interface NativeFailure {
  readonly status_name: FailureName;
  readonly message: string;
}

/** A failure while checkpoint or weights were read. `directory` is cut out of the message, file names stay. */
export function readError(error: unknown, directory = ""): WireError {
  if (error instanceof SllmError) return { code: error.code, message: error.message };
  const failure = error instanceof SllmNativeError ? error : isNativeFailure(error) ? error : null;
  if (failure) return withoutDirectory(loadErrorCode(failure.status_name), failure.message, directory);
  const message = error instanceof Error ? error.message : String(error);
  return withoutDirectory("model_load_failed", message, directory);
}

/** A failure that the engine process reported itself. */
export function engineError(error: WireError, directory: string): WireError {
  return withoutDirectory(error.code, error.message, directory);
}

/** A failure that the engine reported; the store (`read`) knows better than the engine why weights did not come. */
export function loadFailure(
  engine: WireError,
  read: unknown,
  { directory }: { readonly directory: string },
): WireError {
  return read ? readError(read, directory) : engineError(engine, directory);
}

/** Signals that a process never gets from its own mistakes. */
const outsideSignals: ReadonlySet<string> = new Set(
  ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"].map((name) => `signal ${name}`),
);

/** An engine process that ended although nobody asked it to. One that was killed says nothing about model or prompt. */
export function engineEndError(end: EngineEnd, wasLoading: boolean): WireError {
  const error = engineFailure(`The engine process ended with ${end.reason}.`, end.last_lines, wasLoading);
  return outsideSignals.has(end.reason) ? { ...error, code: "engine_killed" } : error;
}

/** What became of an engine, with the last lines of its log. */
export function engineFailure(what: string, last_lines: readonly string[], wasLoading: boolean): WireError {
  const words = libraryWords(last_lines).slice(-quotedLines).join("\n");
  const message = words === "" ? what : `${what} Its last words: ${words}`;
  return { code: wasLoading ? "model_load_failed" : "engine_failed", message };
}

function withoutDirectory(code: WireError["code"], message: string, directory: string): WireError {
  return { code, message: directory === "" ? message : message.replaceAll(`${directory}/`, "") };
}

function isNativeFailure(value: unknown): value is NativeFailure {
  return typeof value === "object" && value !== null && "status_name" in value && "message" in value;
}
