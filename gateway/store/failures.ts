/** What can go wrong on the way to the database, told apart: not answering, in each other's way, or a defect. */
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";

/** Errors of sockets and of the driver that mean: nobody there. */
const connectionCodes = new Set([
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECTION_ENDED",
  "CONNECT_TIMEOUT",
  "EAI_AGAIN",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
]);

/** SQLSTATE classes of a server that cannot serve now: connection, authorisation, no such database, resources, operator. */
const unavailableClasses = /^(08|28|3D|53|57P)/;
/** Serialization failure and deadlock: the transaction left no trace and may be run again. */
const retryableStates = new Set(["40001", "40P01"]);
/** Text that the database cannot hold, such as NUL. */
const untextualStates = new Set(["22021", "22P05"]);

/** No such table, no such column: the database was made for another version, or for nothing at all. */
const foreignStates = new Set(["42P01", "42703"]);

const attempts = 3;

/**
 * Runs one operation, a single transaction each. Throws `state_unavailable` when the database cannot be reached or
 * does not answer within `limits.database_call_ms`: whether the change took place is then unknown, and only its
 * guard makes it safe to try again.
 */
export async function callDatabase<T>(clock: Pick<Clock, "sleep">, operation: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withinDeadline(clock, operation());
    } catch (thrown) {
      if (thrown instanceof SllmError) throw thrown;
      const code = codeOf(thrown);
      if (retryableStates.has(code) && attempt < attempts) continue;
      throw translate(code, thrown);
    }
  }
}

function translate(code: string, thrown: unknown): unknown {
  if (connectionCodes.has(code) || unavailableClasses.test(code)) {
    return new SllmError("state_unavailable", `The database cannot be used (${code}).`, { cause: thrown });
  }
  if (foreignStates.has(code)) {
    const message = "The database has not the tables of this version: its migrations were not applied.";
    return new SllmError("migrations_missing", message, { cause: thrown });
  }
  if (retryableStates.has(code)) {
    return new SllmError("state_conflict", "Others changed the same rows at the same time.", {
      cause: thrown,
    });
  }
  if (untextualStates.has(code)) {
    return new SllmError("invalid_request", "A text holds characters that cannot be stored.", {
      cause: thrown,
    });
  }
  return thrown;
}

/** The innermost code: Drizzle wraps what the driver throws. */
function codeOf(thrown: unknown): string {
  let code = "";
  for (let at = thrown; at instanceof Error; at = at.cause) {
    if ("code" in at && typeof at.code === "string") code = at.code;
  }
  return code;
}

async function withinDeadline<T>(clock: Pick<Clock, "sleep">, answer: Promise<T>): Promise<T> {
  const answered = new AbortController();
  const silence = clock.sleep(limits.database_call_ms, answered.signal).then(() => {
    if (answered.signal.aborted) return answer;
    throw new SllmError("state_unavailable", "The database does not answer.");
  });
  try {
    return await Promise.race([answer, silence]);
  } finally {
    answered.abort();
  }
}
