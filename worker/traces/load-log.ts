/**
 * The traces of the last loads: in memory for questions, and one JSON line each in `loads.jsonl` of the data folder.
 * The file is bounded: a full one becomes `loads.jsonl.1`, which replaces the one before. A disk that refuses costs
 * the lines, never a load.
 */
import { appendFile, readFile, rename, stat } from "node:fs/promises";
import { type LoadsQuery, type LoadTrace, loadTrace } from "../../schema/cluster/loads.ts";
import { limits } from "../../schema/limits.ts";
import { isMissing, systemReason } from "../checkpoints/import/system-failure.ts";
import type { Log } from "../ports.ts";

export interface LoadLogOptions {
  /** Path of the file. */
  readonly file: string;
  readonly log: Log;
  /** Size at which the file is set aside. */
  readonly file_bytes?: number;
}

export class LoadLog {
  readonly #options: LoadLogOptions;
  /** Oldest first. */
  readonly #kept: LoadTrace[] = [];
  #writing: Promise<void> = Promise.resolve();
  #refused = false;

  constructor(options: LoadLogOptions) {
    this.#options = options;
  }

  /** Takes in what an earlier process has written, as far as it can be read. */
  async open(): Promise<void> {
    const { file } = this.#options;
    const lines = [...(await linesOf(`${file}.1`)), ...(await linesOf(file))].slice(-limits.kept_loads);
    const traces = lines.map(parseTrace).filter((trace) => trace !== null);
    this.#kept.unshift(...traces);
    this.#bound();
  }

  /** Keeps a trace; the file follows in the background. */
  add(trace: LoadTrace): void {
    this.#kept.push(trace);
    this.#bound();
    this.#writing = this.#writing.then(() => this.#append(trace));
  }

  /** The newest first. */
  find({ model_id, instance_id, limit }: LoadsQuery): LoadTrace[] {
    return this.#kept
      .filter((trace) => model_id === undefined || trace.model_id === model_id)
      .filter((trace) => instance_id === undefined || trace.instance_id === instance_id)
      .slice(-limit)
      .reverse();
  }

  /** Resolves when everything added so far is in the file, or was refused. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  #bound(): void {
    this.#kept.splice(0, this.#kept.length - limits.kept_loads);
  }

  async #append(trace: LoadTrace): Promise<void> {
    const { file, log, file_bytes = limits.load_log_bytes } = this.#options;
    const line = `${JSON.stringify(trace)}\n`;
    try {
      const { size } = await stat(file).catch(sizeOfMissing);
      if (size > 0 && size + line.length > file_bytes) await rename(file, `${file}.1`);
      await appendFile(file, line);
      this.#refused = false;
    } catch (error) {
      // One line until it works again: a full disk must not fill the log as well.
      if (!this.#refused) log.warn("load_log_refused", { reason: systemReason(error) });
      this.#refused = true;
    }
  }
}

function sizeOfMissing(error: unknown): { size: number } {
  if (isMissing(error)) return { size: 0 };
  throw error;
}

async function linesOf(file: string): Promise<string[]> {
  try {
    return (await readFile(file, "utf8")).split("\n").filter((line) => line !== "");
  } catch {
    // Old traces are a convenience: a file that is not there or cannot be read has none.
    return [];
  }
}

/** null for a line that a crash cut short, or of another version. */
function parseTrace(line: string): LoadTrace | null {
  try {
    return loadTrace.parse(JSON.parse(line));
  } catch {
    // Not a trace of this version: left out.
    return null;
  }
}
