/** The form of files: lengths, opening comments, names, suppressions, leftovers, modes. */
import { isTest, isTypeScript, lineAt, type Problem, type SourceFile, withoutStrings } from "./sources.ts";

/** What a reader takes in at once; a longer file says at its top why it is one. */
export const fileLinesMax = 300;
/** A screen. */
export const functionLinesMax = 60;
/** Columns; Biome holds TypeScript to it, this rule the rest. */
export const columnsMax = 120;
/** "The event queue." says enough above a file of that name. */
const openingWordsMin = 3;
/** Above it a file belongs elsewhere, except the sample model. */
const fileBytesMax = 512 * 1024;

const code = /\.(ts|mjs|cc|h|c)$/;
const generated = /^schema\/db\/migrations\/|^package-lock\.json$|^LICENSE$/;

/** Files longer than the bound that do not say why ("Longer than ... because ..." in the opening comment). */
export function checkFileLength(file: SourceFile): Problem[] {
  if (!code.test(file.path) || generated.test(file.path)) return [];
  const lines = file.text.trimEnd().split("\n").length;
  if (lines <= fileLinesMax || /\blonger than\b/i.test(openingComment(file.text))) return [];
  return [
    `${file.path}:1: ${lines} lines; at most ${fileLinesMax}, or the opening comment says why it is longer than that`,
  ];
}

/** Lines too long to read beside another file. */
export function checkColumns(file: SourceFile): Problem[] {
  if (!/\.(cc|h|c|mjs|sh|yaml)$|\/run$/.test(file.path) || generated.test(file.path)) return [];
  return file.text.split("\n").flatMap((line, i) => {
    const columns = [...line].length;
    return columns > columnsMax ? [`${file.path}:${i + 1}: ${columns} columns, at most ${columnsMax}`] : [];
  });
}

/**
 * Functions longer than a screen. Formatted code closes a block with the indentation of the line that opened it, so
 * no parser is needed. Suites and cases of tests (also those of a contract) are not functions in this sense; what they
 * call is.
 */
export function checkFunctionLength(file: SourceFile): Problem[] {
  if (!code.test(file.path) || /\.(h|contract\.ts)$/.test(file.path)) return [];
  const lines = withoutStrings(file.text).split("\n");
  return lines.flatMap((line, start) => {
    if (!opensFunction(file.path, lines, start)) return [];
    const indent = /^\s*/.exec(line)?.[0] ?? "";
    const length = lines.slice(start + 1).findIndex((other) => other.startsWith(`${indent}}`)) + 2;
    return length > functionLinesMax
      ? [`${file.path}:${start + 1}: a function of ${length} lines, at most ${functionLinesMax}`]
      : [];
  });
}

function opensFunction(path: string, lines: readonly string[], index: number): boolean {
  const line = lines[index] ?? "";
  if (/\.(cc|c)$/.test(path))
    return /^[A-Za-z_][^;]*\(/.test(line) && !/[;}]\s*$/.test(line) && !/^namespace|^#/.test(line);
  if (/^\s*(if|for|while|switch|catch|return|describe|test|it)\b/.test(line)) return false;
  return (
    /^\s*(export )?(default )?(async )?function\b/.test(line) ||
    /^\s*(export )?const \w+(: [^=]+)? = (async )?(\([^)]*\)|\w+)(: [^=]+)? => \{$/.test(line) ||
    /^ {2}(static |async |override |get |set |\*)*#?\w+\(.*\{$/.test(line)
  );
}

/** The comment at the top of a file, without a first line for the shell. */
export function openingComment(text: string): string {
  const body = text.replace(/^#!.*\n/, "");
  return (
    /^\/\*\*?[\s\S]*?\*\//.exec(body)?.[0] ??
    /^(?:\/\/.*\n)+/.exec(body)?.[0] ??
    /^(?:#(?! *include| *pragma| *if).*\n)+/.exec(body)?.[0] ??
    ""
  );
}

/** Files that do not begin by saying what they are. A test beside its file has that one's name to say it. */
export function checkOpeningComment(file: SourceFile): Problem[] {
  if (file.path.endsWith(".test.ts") && !file.path.startsWith("test/")) return [];
  if (
    !/\.(ts|mjs|cc|h|c|yaml|map)$|CMakeLists\.txt$|^\.ci\/run$/.test(file.path) ||
    generated.test(file.path)
  )
    return [];
  const words = openingComment(file.text).match(/[A-Za-z]{2,}/g)?.length ?? 0;
  return words >= openingWordsMin ? [] : [`${file.path}:1: begin with a comment that says what the file is`];
}

/** Names that say nothing, and names in another case than their neighbours. */
export function checkFileName(file: SourceFile): Problem[] {
  const name = file.path.split("/").at(-1) ?? "";
  if (/^(utils?|helpers?|common|misc|shared)\.(ts|mjs|cc|h)$/.test(name)) {
    return [`${file.path}:1: a name that says nothing; call it by what it holds`];
  }
  const wanted = /\.(ts|mjs)$/.test(name)
    ? /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|contract|bench|config|d))?\.(ts|mjs)$/
    : /\.(cc|h|c)$/.test(name)
      ? /^[a-z0-9]+(_[a-z0-9]+)*\.(cc|h|c)$/
      : /./;
  return wanted.test(name) ? [] : [`${file.path}:1: kebab-case in TypeScript, snake_case in C++`];
}

/** Suppressed checks without a reason, and escapes from the type system. */
export function checkSuppressions(file: SourceFile): Problem[] {
  if (!code.test(file.path) || file.path.startsWith("test/tidy/")) return [];
  const found: Problem[] = [];
  const report = (text: string, pattern: RegExp, why: string) => {
    for (const match of text.matchAll(pattern))
      found.push(`${file.path}:${lineAt(text, match.index)}: ${why}`);
  };
  report(file.text, /@ts-(ignore|nocheck|expect-error)/g, "no suppression of type errors");
  report(file.text, /biome-ignore [\w/]+(?!\S*: \S)/g, "a suppression needs its reason");
  report(withoutStrings(file.text), /\bas any\b|: any\b|<any>/g, "no 'any'");
  // The line above may say why the types cannot.
  const castWithoutReason = /^(?!\s*(?:\/\/|\*)).*\n.*\bas unknown as\b/gm;
  report(file.text, castWithoutReason, "a cast through unknown needs its reason on the line above");
  report(file.text, /\bcatch(?: \(\w+\))? \{\s*\}/g, "an error swallowed without a reason");
  return found;
}

const leftover = new RegExp(
  `\\b(${["FIX", "TO"].map((a, i) => a + ["ME", "DO"][i]).join("|")}|XXX|HACK)\\b`,
  "g",
);

/** Notes of unfinished work: an issue tracker is the place. */
export function checkLeftovers(file: SourceFile): Problem[] {
  if (generated.test(file.path)) return [];
  return [...file.text.matchAll(leftover)]
    .filter(() => !file.path.startsWith("test/tidy/") && !file.path.startsWith("test/runner/"))
    .map((match) => `${file.path}:${lineAt(file.text, match.index)}: ${match[0]} left over`);
}

/** Paths of somebody's machine. */
export function checkMachinePaths(file: SourceFile): Problem[] {
  if (file.path.startsWith("test/tidy/")) return [];
  return [...file.text.matchAll(/(?<![\w.$}])\/(?:work|home|Users)\/[a-z]/g)].map(
    (match) => `${file.path}:${lineAt(file.text, match.index)}: a path of one machine`,
  );
}

/** Executable without being a program, a program that is not executable, or a large file. */
export function checkModeAndSize(file: SourceFile): Problem[] {
  const problems: Problem[] = [];
  const isProgram = file.text.startsWith("#!");
  if (file.isExecutable !== isProgram) {
    problems.push(
      `${file.path}:1: ${isProgram ? "a program without its executable bit" : "executable without #!"}`,
    );
  }
  if (file.bytes > fileBytesMax && !/^test\/models\/.*\.gguf$/.test(file.path)) {
    problems.push(`${file.path}:1: ${file.bytes} bytes; large files do not belong into the repository`);
  }
  return problems;
}

/** Names of tests that are no sentence about behaviour. */
export function checkTestNames(file: SourceFile): Problem[] {
  if (!isTypeScript(file) || !isTest(file)) return [];
  return [
    ...file.text.matchAll(/^\s*(?:test|it)(?:\.\w+(?:\([^()]*\))?)*\(\s*(["'`])((?:(?!\1).)+)\1/gm),
  ].flatMap((match) => {
    const name = match[2] ?? "";
    if (name.startsWith("%")) return []; // the table holds the sentences
    const isSentence = name.trim().split(/\s+/).length >= 3 && !/^(should|test|check)\b/i.test(name);
    const line = lineAt(file.text, match.index + match[0].search(/\S/));
    return isSentence ? [] : [`${file.path}:${line}: '${name}': say in a sentence what the system does`];
  });
}
