/** Log lines as JSON, one object a line, through a writer that the composition root gives. */
import type { Clock, Log, LogFields } from "../ports.ts";

type Level = "info" | "warn" | "error";

/** Characters kept of a cause's message and stack: enough to find the place, bounded if a driver quotes a query. */
const causeChars = 2_000;

/** A log whose lines go to `write`, without the line end. Fields with the value undefined are left out. */
export function createJsonLog(write: (line: string) => void, clock: Pick<Clock, "wallMs">): Log {
  const line = (level: Level, event: string, fields: LogFields, cause?: unknown) => {
    const at = new Date(clock.wallMs()).toISOString();
    write(JSON.stringify({ at, level, event, ...fields, ...(cause === undefined ? {} : describe(cause)) }));
  };
  return {
    info: (event, fields = {}) => line("info", event, fields),
    warn: (event, fields = {}) => line("warn", event, fields),
    error: (event, fields = {}, cause) => line("error", event, fields, cause),
  };
}

function describe(cause: unknown): Record<string, string> {
  if (!(cause instanceof Error)) return { cause: String(cause).slice(0, causeChars) };
  const root = cause.cause instanceof Error ? ` <- ${cause.cause.message}` : "";
  return {
    cause: `${cause.name}: ${cause.message}${root}`.slice(0, causeChars),
    ...(cause.stack === undefined ? {} : { stack: cause.stack.slice(0, causeChars) }),
  };
}
