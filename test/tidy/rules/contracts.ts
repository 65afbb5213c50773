/** Limits, error codes, variables and dependencies: what is declared is used, explained and exact. */
import { isTest, isTypeScript, lineAt, type Problem, type SourceFile, withoutComments } from "./sources.ts";

const limitsPath = "schema/limits.ts";
const codesPath = "schema/codes.ts";

/** Every bound is used by code outside its declaration and has its unit and reason above it. */
export function checkLimits(files: readonly SourceFile[]): Problem[] {
  const declaration = files.find((file) => file.path === limitsPath);
  if (declaration === undefined) return [`${limitsPath}:1: is missing`];
  const others = files.filter((file) => isTypeScript(file) && file.path !== limitsPath && !isTest(file));
  return [...declaration.text.matchAll(/^ {2}(\w+): /gm)].flatMap((match) => {
    const name = match[1] ?? "";
    const line = lineAt(declaration.text, match.index);
    const problems: Problem[] = [];
    const before = declaration.text.slice(0, match.index).trimEnd();
    if (!before.endsWith("*/"))
      problems.push(`${limitsPath}:${line}: ${name} has no comment with its reason`);
    const use = new RegExp(`\\blimits\\.${name}\\b`);
    if (!others.some((file) => use.test(file.text)))
      problems.push(`${limitsPath}:${line}: ${name} is not used`);
    return problems;
  });
}

/** Every error code is raised somewhere, and no code is raised that the table does not have. */
export function checkCodes(files: readonly SourceFile[]): Problem[] {
  const declaration = files.find((file) => file.path === codesPath);
  if (declaration === undefined) return [`${codesPath}:1: is missing`];
  const sources = files.filter((file) => isTypeScript(file) && file.path !== codesPath && !isTest(file));
  const text = sources.map((file) => withoutComments(file.text)).join("\n");
  return [...declaration.text.matchAll(/^ {2}(\w+): \{$/gm)].flatMap((match) => {
    const name = match[1] ?? "";
    if (text.includes(`"${name}"`)) return [];
    return [`${codesPath}:${lineAt(declaration.text, match.index)}: nothing raises ${name}`];
  });
}

/** Variables that the code reads and no document names. */
export function checkVariables(files: readonly SourceFile[]): Problem[] {
  const documents = files.filter((file) => file.path.endsWith(".md")).map((file) => file.text);
  const named = new Set(documents.flatMap((text) => text.match(/\bSLLM_[A-Z_]+\b/g) ?? []));
  return files
    .filter((file) => /\.(ts|mjs)$/.test(file.path) && !isTest(file))
    .flatMap((file) =>
      [...withoutComments(file.text).matchAll(/\benv\.(SLLM_[A-Z_]+)\b|variables\.(SLLM_[A-Z_]+)\b/g)]
        .filter((match) => !named.has(match[1] ?? match[2] ?? ""))
        .map(
          (match) =>
            `${file.path}:${lineAt(file.text, match.index)}: ${match[1] ?? match[2]} is in no document`,
        ),
    );
}

/** Versions that are not exact: a build today and one next year must be the same. */
export function checkDependencies(packageJson: string): Problem[] {
  const parsed: Record<string, Record<string, string> | undefined> = JSON.parse(packageJson);
  return ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"].flatMap((section) =>
    Object.entries(parsed[section] ?? {})
      .filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))
      .map(([name, version]) => `package.json:1: ${name} has the version '${version}', which is not exact`),
  );
}
