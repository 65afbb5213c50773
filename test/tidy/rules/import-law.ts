/**
 * The import law as data: which part of the tree may import which. What a row does not name is refused, so that a new
 * folder has to be given its place here.
 */
import path from "node:path";
import { isTypeScript, lineAt, type Problem, type SourceFile, withoutComments } from "./sources.ts";

interface Law {
  /** Files the row is about; the first matching row counts. */
  readonly from: RegExp;
  /** Files of ours they may import. */
  readonly files: readonly RegExp[];
  /** Packages and runtime modules they may import. */
  readonly packages: readonly RegExp[];
  /** `files` of these may be imported for their types only. */
  readonly typesOnly?: readonly RegExp[];
}

const schema = /^schema\//;
const ports = /^gateway\/ports\.ts$/;
const within = (folder: string) => new RegExp(`^${folder}/`);
const nodeModules = /^node:/;
/** For the version. */
const packageFile = /^package\.json$/;
const bunFfiHelpers = /^native\/bun-ffi-helpers\//;

export const laws: readonly Law[] = [
  // A unit test obeys the row of the file it stands beside; see `lawOf`.
  { from: /^schema\/db\/drizzle\.config\.ts$/, files: [schema], packages: [/^drizzle-kit$/] },
  { from: schema, files: [schema], packages: [/^zod$/, /^drizzle-orm(\/|$)/] },

  // Inside the gateway an arrow points down this list, never up; adapters see ports only and are bound in main.
  { from: /^gateway\/ports\.ts$/, files: [schema], packages: [], typesOnly: [schema] },
  { from: /^gateway\/scheduler\//, files: [schema, within("gateway/scheduler")], packages: [] },
  { from: /^gateway\/auth\//, files: [schema, ports, within("gateway/auth")], packages: [] },
  { from: /^gateway\/admission\//, files: [schema, ports, within("gateway/admission")], packages: [] },
  {
    from: /^gateway\/placement\//,
    files: [schema, ports, within("gateway/scheduler"), within("gateway/placement")],
    packages: [],
  },
  {
    from: /^gateway\/dispatch\//,
    files: [
      ...[schema, ports, within("gateway/dispatch"), within("gateway/admission")],
      ...[within("gateway/scheduler"), within("gateway/placement")],
    ],
    packages: [],
  },
  {
    from: /^gateway\/control\//,
    files: [
      ...[schema, ports, within("gateway/control"), within("gateway/scheduler")],
      ...[within("gateway/placement"), within("gateway/dispatch")],
    ],
    packages: [],
  },
  {
    // Composes the parts above in its own time; nothing of the gateway knows it.
    from: /^gateway\/simulator\//,
    files: [
      ...[
        schema,
        ports,
        within("gateway/simulator"),
        within("gateway/scheduler"),
        within("gateway/placement"),
      ],
      ...[within("gateway/admission"), within("gateway/dispatch"), within("gateway/control")],
    ],
    packages: [],
  },
  {
    from: /^gateway\/http\//,
    files: [
      ...[schema, ports, within("gateway/http"), within("gateway/auth"), within("gateway/admission")],
      ...[within("gateway/dispatch"), within("gateway/placement"), within("gateway/control")],
    ],
    packages: [/^hono(\/|$)/, /^@hono\//, /^zod$/],
  },
  {
    from: /^gateway\/store\//,
    files: [schema, ports, within("gateway/store")],
    packages: [/^drizzle-orm(\/|$)/, /^postgres$/],
  },
  {
    from: /^gateway\/workers\//,
    files: [schema, ports, within("gateway/workers")],
    packages: [/^eventsource-parser(\/|$)/, /^zod$/],
  },
  { from: /^gateway\/system\//, files: [schema, ports, within("gateway/system")], packages: [] },
  {
    from: /^gateway\/(app|gateway)\.ts$/,
    files: [
      schema,
      ports,
      /^gateway\/(app\.ts|http|auth|admission|dispatch|placement|control|scheduler)(\/|$)/,
    ],
    packages: [/^hono(\/|$)/, /^@hono\//],
  },
  { from: /^gateway\/main\//, files: [schema, within("gateway"), packageFile], packages: [/./] },

  { from: /^worker\/main\//, files: [schema, within("worker"), bunFfiHelpers, packageFile], packages: [/./] },
  {
    from: /^worker\//,
    files: [schema, within("worker"), bunFfiHelpers],
    packages: [nodeModules, /^hono(\/|$)/, /^zod$/, /^eventsource-parser(\/|$)/],
  },
  { from: bunFfiHelpers, files: [schema, bunFfiHelpers], packages: [/^bun:ffi$/, nodeModules] },

  {
    from: /^deploy\/cli\//,
    files: [
      ...[schema, within("deploy/cli"), /^worker\/checkpoints\/import\.ts$/],
      /^gateway\/simulator\/simulator\.ts$/,
    ],
    packages: [nodeModules, /^bun$/, /^citty$/, /^yaml$/, /^zod$/, /^eventsource-parser$/],
  },
  { from: /^deploy\/client\//, files: [within("deploy/client")], packages: [] },
  { from: /^deploy\/(scripts|bin)\//, files: [/^deploy\/scripts\//], packages: [nodeModules] },

  { from: /^test\//, files: [/./], packages: [/./] },
];

/** Tests beside the code may also use Bun's test runner, the property tester, what tests share, and made-up models. */
const unitTestExtras = {
  files: [/^test\/(support|models)\//],
  packages: [/^bun:test$/, /^fast-check$/, nodeModules, /^yaml$/, /^hono(\/|$)/],
};

export interface Import {
  readonly specifier: string;
  readonly isTypeOnly: boolean;
  readonly line: number;
}

const statement =
  /^[ \t]*(import|export)\s+(type\s+)?(?:[^"';]*?\sfrom\s*)?["']([^"'\n]+)["']|\bimport\(\s*["']([^"'\n]+)["']\s*\)/gm;

/** Imports and re-exports of a file, also `import()` of a literal. */
export function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  return [...code.matchAll(statement)].flatMap((match) => {
    const specifier = match[3] ?? match[4];
    if (specifier === undefined || (match[1] === "export" && !/\bfrom\b/.test(match[0]))) return [];
    const isTypeOnly = match[2] !== undefined || isInlineTypesOnly(match[0]);
    return [{ specifier, isTypeOnly, line: lineAt(code, match.index + match[0].search(/\S/)) }];
  });
}

/** `import { type A, type B } from` brings in no value. */
function isInlineTypesOnly(text: string): boolean {
  const names = /\{([^}]*)\}/.exec(text)?.[1];
  if (names === undefined || /^\s*import\s+\w/.test(text.replace(/^\s*import\s+type\b/, ""))) return false;
  return names
    .split(",")
    .filter((name) => name.trim() !== "")
    .every((name) => /^\s*type\s/.test(name));
}

/** Path of the imported file in the repository; null for packages and runtime modules. */
export function resolveImport(from: string, specifier: string): string | null {
  return specifier.startsWith(".")
    ? path.posix.normalize(path.posix.join(path.posix.dirname(from), specifier))
    : null;
}

function lawOf(file: string): Law | undefined {
  const law = laws.find((row) => row.from.test(file));
  if (law === undefined || !file.endsWith(".test.ts") || file.startsWith("test/")) return law;
  return {
    ...law,
    files: [...law.files, ...unitTestExtras.files],
    packages: [...law.packages, ...unitTestExtras.packages],
    typesOnly: [],
  };
}

/** Imports that the law refuses, and imports of our own files without their ending. */
export function checkImportLaw(file: SourceFile): Problem[] {
  if (!isTypeScript(file) && !file.path.endsWith(".mjs")) return [];
  const law = lawOf(file.path);
  if (law === undefined)
    return isTypeScript(file) ? [`${file.path}:1: no row of the import law covers this file`] : [];
  return importsOf(file.text).flatMap(({ specifier, isTypeOnly, line }) => {
    const refuse = (why: string) => [`${file.path}:${line}: import of ${specifier}: ${why}`];
    const target = resolveImport(file.path, specifier);
    if (target === null) {
      return law.packages.some((allowed) => allowed.test(specifier))
        ? []
        : refuse("not a package for this part");
    }
    if (!/\.(ts|mjs|js|json|sql)$/.test(target)) return refuse("write the file's ending");
    if (!law.files.some((allowed) => allowed.test(target))) return refuse("this part must not know that one");
    if (!isTypeOnly && law.typesOnly?.some((types) => types.test(target)) === true)
      return refuse("types only");
    return [];
  });
}

/** Files that import each other's values in a circle, each circle once. */
export function findCycles(files: readonly SourceFile[]): Problem[] {
  const edges = new Map(
    files.filter(isTypeScript).map((file) => {
      const targets = importsOf(file.text)
        .filter((found) => !found.isTypeOnly)
        .map((found) => resolveImport(file.path, found.specifier));
      return [file.path, targets.filter((target) => target !== null)] as const;
    }),
  );
  const done = new Set<string>();
  const problems: Problem[] = [];
  const visit = (file: string, trail: readonly string[]): void => {
    const start = trail.indexOf(file);
    if (start >= 0) {
      problems.push(`${file}:1: import circle: ${[...trail.slice(start), file].join(" -> ")}`);
      return;
    }
    if (done.has(file)) return;
    for (const target of edges.get(file) ?? []) visit(target, [...trail, file]);
    done.add(file);
  };
  for (const file of edges.keys()) visit(file, []);
  return problems;
}
