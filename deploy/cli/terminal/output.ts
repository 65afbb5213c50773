/** Where a command writes: results to standard output, everything else to standard error. */

export function printLine(text = ""): void {
  process.stdout.write(`${text}\n`);
}

/** Progress and notes: not part of the result. */
export function printNote(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Calls back once when the reader of standard output has left, as `head` does; later output goes nowhere. */
export function onReaderGone(callback: () => void): void {
  let isGone = false;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    if (isGone) return;
    isGone = true;
    callback();
  });
}
