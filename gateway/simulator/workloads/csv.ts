/** Traces as CSV: columns by name, and rows that cannot be read named by file and line. */
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";

export interface CsvRow {
  readonly line: number;
  /** By the names of the columns. */
  readonly cells: Readonly<Record<string, string>>;
}

export function badTrace(file: string, line: number, message: string): SllmError {
  return new SllmError("trace_invalid", `${file}:${line}: ${message}`);
}

export interface Columns {
  readonly required: readonly string[];
  readonly optional: readonly string[];
}

/** Rows of CSV text with a header. Throws `trace_invalid` for columns that are not known, or missing, or bad rows. */
export function readCsv(file: string, text: string, { required, optional }: Columns): CsvRow[] {
  const lines = text.split(/\r?\n/);
  const names = cellsOf(file, 1, lines[0] ?? "").map((name) => name.trim());
  const known = [...required, ...optional];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw badTrace(file, 1, `unknown column '${unknown}'; known are ${known.join(", ")}`);
  }
  const missing = required.find((name) => !names.includes(name));
  if (missing !== undefined) throw badTrace(file, 1, `column '${missing}' is missing`);
  const rows: CsvRow[] = [];
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i] ?? "";
    if (line.trim() === "") continue;
    if (rows.length >= limits.simulated_requests) {
      throw badTrace(file, i + 1, `more than ${limits.simulated_requests} rows`);
    }
    const cells = cellsOf(file, i + 1, line);
    if (cells.length !== names.length) {
      throw badTrace(file, i + 1, `${cells.length} cells, the header has ${names.length}`);
    }
    rows.push({ line: i + 1, cells: Object.fromEntries(names.map((name, k) => [name, cells[k] ?? ""])) });
  }
  return rows;
}

/** Names of the columns of CSV text. */
export function headerOf(file: string, text: string): string[] {
  const end = text.indexOf("\n");
  return cellsOf(file, 1, (end < 0 ? text : text.slice(0, end)).trimEnd());
}

/** A number of a row that is not below the least. */
export function numberIn(
  file: string,
  { line, cells }: CsvRow,
  name: string,
  least: number,
  isWhole: boolean,
): number {
  const text = cells[name] ?? "";
  const value = Number(text);
  if (
    text.trim() === "" ||
    !Number.isFinite(value) ||
    value < least ||
    (isWhole && !Number.isInteger(value))
  ) {
    const kind = isWhole ? "a whole number" : "a number";
    throw badTrace(file, line, `'${name}' is '${text.slice(0, 40)}', not ${kind} of at least ${least}`);
  }
  return value;
}

function cellsOf(file: string, line: number, text: string): string[] {
  if (text.length > limits.trace_line_chars) throw badTrace(file, line, "the line is too long");
  if (!text.includes('"')) return text.split(",");
  const cells: string[] = [];
  let cell = "";
  let isQuoted = false;
  for (const sign of text) {
    if (sign === '"') isQuoted = !isQuoted;
    else if (sign === "," && !isQuoted) {
      cells.push(cell);
      cell = "";
    } else cell += sign;
  }
  if (isQuoted) throw badTrace(file, line, "a quote is not closed");
  return [...cells, cell];
}
