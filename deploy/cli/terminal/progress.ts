/** One line on a terminal that is written over while something goes on, and gone when it is done. */
import { formatBytes } from "./table.ts";

export interface StatusLine {
  show(text: string): void;
  /** Removes the line. */
  clear(): void;
}

export interface TextOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const eraseLine = "\r\u001b[2K";

/** Writes to `output` if that is a terminal, else nothing: files and pipes get results only. */
export function createStatusLine(output: TextOutput): StatusLine {
  if (output.isTTY !== true) return { show: () => {}, clear: () => {} };
  let shown = "";
  return {
    show: (text) => {
      if (text === shown) return;
      shown = text;
      output.write(eraseLine + text.slice(0, (output.columns ?? 80) - 1));
    },
    clear: () => {
      if (shown !== "") output.write(eraseLine);
      shown = "";
    },
  };
}

/** `[####....] 45 %  1.2 GiB of 2.7 GiB`. */
export function formatProgress(done_bytes: number, total_bytes: number): string {
  const share = total_bytes === 0 ? 1 : Math.min(1, done_bytes / total_bytes);
  const filled = Math.floor(share * progressCells);
  const bar = "#".repeat(filled) + ".".repeat(progressCells - filled);
  return `[${bar}] ${Math.floor(share * 100)} %  ${formatBytes(done_bytes)} of ${formatBytes(total_bytes)}`;
}

const progressCells = 30;
