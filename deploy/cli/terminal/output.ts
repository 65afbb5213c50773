/** Where a command writes: results to standard output, everything else to standard error. */

export function printLine(text = ""): void {
  process.stdout.write(`${text}\n`);
}

/** Progress and notes: not part of the result. */
export function printNote(text: string): void {
  process.stderr.write(`${text}\n`);
}
