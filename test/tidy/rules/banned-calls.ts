/** Calls that have one home, and what to use elsewhere. */
import { isTest, isTypeScript, lineAt, type Problem, type SourceFile, withoutStrings } from "./sources.ts";

interface Ban {
  readonly pattern: RegExp;
  /** Files where the call is at home. */
  readonly homes: RegExp;
  readonly instead: string;
}

/** Programs of their own, run by people, and tests: time and environment are theirs. */
const programs = /^(deploy\/|test\/)|\.test\.ts$/;
/** A conversion is a program too: `sllm convert` is a shell around it. */
const conversion = /^worker\/checkpoints\/import\//;
const and = (...parts: RegExp[]) => new RegExp(parts.map((part) => part.source).join("|"));

export const bans: readonly Ban[] = [
  {
    pattern: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(/g,
    homes: and(programs, conversion, /^(gateway|worker)\/(main|system)\//, /^worker\/engine\/main\.ts$/),
    instead: "take the time from the Clock port, so that tests decide it",
  },
  {
    pattern: /\bMath\.random\(/g,
    homes: /^test\/support\//,
    instead: "take bytes from the Random port, or crypto.getRandomValues; in tests the seeded source",
  },
  {
    pattern: /\bprocess\.env\b/g,
    homes: and(programs, /^(gateway|worker)\/main\//, /^worker\/engine\/main\.ts$/, /\/native-paths\.ts$/),
    instead: "settings come through schema/config.ts, read in main",
  },
  {
    pattern: /\bconsole\.\w+\(/g,
    homes: and(/^test\//, /^gateway\/main\//),
    instead: "log through the Log port; a program's results go to process.stdout",
  },
  {
    pattern: /\bsetInterval\(/g,
    homes: and(/^test\//, /^(gateway|worker)\/main\//),
    instead: "loop with Clock.sleep: an interval piles up when its work takes longer than its period",
  },
  {
    pattern: /\b(?:Bun|Deno)\./g,
    homes: and(
      programs,
      /^(gateway|worker)\/main\//,
      /^native\/bun-ffi-helpers\/load/,
      /^worker\/engine\/main\.ts$/,
    ),
    instead: "only composition roots name a runtime; use web or node: interfaces behind a port",
  },
];

/** What the gateway must not name outside main, so that it runs on every runtime. */
const runtimeNames = /\bprocess\.|\bBuffer\b|\b__dirname\b|\bimport\.meta\.(?:dir|path|main)\b/g;

/** Calls away from their home. */
export function checkBannedCalls(file: SourceFile): Problem[] {
  if (!isTypeScript(file) || file.path.endsWith(".d.ts")) return [];
  const code = withoutStrings(file.text);
  const problems = bans.flatMap(({ pattern, homes, instead }) => {
    if (
      homes.test(file.path) ||
      (isTest(file) && !file.path.startsWith("test/") && pattern.source.includes("Bun"))
    ) {
      return [];
    }
    return [...code.matchAll(pattern)].map(
      (match) => `${file.path}:${lineAt(code, match.index)}: ${match[0].replace(/\($/, "()")}: ${instead}`,
    );
  });
  if (/^gateway\/(?!main\/)/.test(file.path) && !isTest(file)) {
    for (const match of code.matchAll(runtimeNames)) {
      problems.push(
        `${file.path}:${lineAt(code, match.index)}: ${match[0]} names a runtime; only gateway/main may`,
      );
    }
  }
  return problems;
}
