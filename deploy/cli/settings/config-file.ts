/** The YAML file of settings: read, checked for its form, and able to say on which line a setting stands. */
import { readFileSync } from "node:fs";
import { isMap, isPair, isScalar, LineCounter, parseDocument } from "yaml";
import { CommandFailure } from "../failure.ts";

/** Far above any real file; keeps a wrong path (a model, say) from being read whole. */
const fileBytesMax = 1024 * 1024;

export interface ConfigFile {
  readonly path: string;
  readonly settings: { [key: string]: unknown };
  /** Line (from 1) of the setting, of its nearest parent when it is not there itself; null in an empty file. */
  lineOf(path: readonly string[]): number | null;
}

/** Reads the file. Throws CommandFailure with file and line when it is missing or no map of settings. */
export function readConfigFile(path: string): ConfigFile {
  const text = readText(path);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problem = document.errors[0];
  if (problem !== undefined) {
    const { line } = lines.linePos(problem.pos[0]);
    throw new CommandFailure(`${path}:${line}: ${problem.message}`, { advice: "Correct the YAML there." });
  }
  const value: unknown = document.toJS({ maxAliasCount: 0 });
  if (value !== null && (typeof value !== "object" || Array.isArray(value))) {
    throw new CommandFailure(`${path}: expected settings such as 'gateway: { port: 8343 }'`, {
      advice: "See deploy/sllm.example.yaml.",
    });
  }
  return {
    path,
    settings: { ...value },
    lineOf: (wanted) => {
      const offset = offsetOf(document.contents, wanted);
      return offset === null ? null : lines.linePos(offset).line;
    },
  };
}

function readText(path: string): string {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > fileBytesMax) throw new Error(`it has more than ${fileBytesMax} bytes`);
    return bytes.toString("utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CommandFailure(`cannot read the settings file ${path}: ${reason}`, {
      advice: "Check --config or SLLM_CONFIG.",
      cause: error,
    });
  }
}

/** Offset of the key that the path names, as deep as the file goes. */
function offsetOf(node: unknown, path: readonly string[]): number | null {
  const [key, ...rest] = path;
  if (!isMap(node) || key === undefined) return null;
  const pair = node.items.find(
    (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === key,
  );
  if (pair === undefined) return null;
  const own = isScalar(pair.key) ? (pair.key.range?.[0] ?? null) : null;
  return offsetOf(pair.value, rest) ?? own;
}
