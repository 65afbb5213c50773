/** Clock and log of a real process. */
import type { Clock, Log, LogFields } from "../ports.ts";

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (delay_ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const timer = setTimeout(done, delay_ms);
      function done() {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      }
      signal?.addEventListener("abort", done, { once: true });
    }),
};

/** One JSON object per line on standard error. */
export const stderrLog: Log = {
  info: (event, fields) => writeLine("info", event, fields),
  warn: (event, fields) => writeLine("warn", event, fields),
  error: (event, fields, cause) => {
    const stack = cause instanceof Error ? (cause.stack ?? cause.message) : cause;
    writeLine("error", event, cause === undefined ? fields : { ...fields, cause: String(stack) });
  },
};

function writeLine(level: string, event: string, fields: LogFields = {}): void {
  const line = { time: new Date().toISOString(), level, role: "worker", event, ...fields };
  process.stderr.write(`${JSON.stringify(line)}\n`);
}
