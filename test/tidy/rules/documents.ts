/** Documents: their length, their links, the form of the changelog, a README for every part. */
import path from "node:path";
import { lineAt, type Problem, type SourceFile } from "./sources.ts";

const readmeLinesMax = 150;

/** The README is read by everybody, so it is short. */
export function checkReadmeLength(file: SourceFile): Problem[] {
  if (file.path !== "README.md") return [];
  const lines = file.text.trimEnd().split("\n").length;
  return lines > readmeLinesMax ? [`README.md:1: ${lines} lines, at most ${readmeLinesMax}`] : [];
}

/** Links into the repository that lead nowhere, anchors included. */
export function checkLinks(file: SourceFile, files: readonly SourceFile[]): Problem[] {
  if (!file.path.endsWith(".md")) return [];
  const paths = new Map(files.map((other) => [other.path, other]));
  const isThere = (target: string) =>
    paths.has(target) || files.some((other) => other.path.startsWith(`${target.replace(/\/$/, "")}/`));
  return [...withoutCode(file.text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap((match) => {
    const link = match[1] ?? "";
    if (/^[a-z]+:/.test(link)) return [];
    const [relative = "", anchor] = link.split("#");
    const target = relative === "" ? file.path : path.posix.join(path.posix.dirname(file.path), relative);
    const refuse = (why: string) => [
      `${file.path}:${lineAt(file.text, match.index)}: the link to ${link} ${why}`,
    ];
    if (!isThere(target)) return refuse("leads nowhere");
    const document = paths.get(target);
    return anchor !== undefined && document !== undefined && !anchorsOf(document.text).includes(anchor)
      ? refuse("has no such heading")
      : [];
  });
}

function withoutCode(text: string): string {
  return text.replace(/```[\s\S]*?```|`[^`\n]*`/g, (part) => part.replace(/[^\n]/g, " "));
}

function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
    (match[1] ?? "")
      .toLowerCase()
      .replace(/[^\w\- ]/g, "")
      .replaceAll(" ", "-"),
  );
}

const sections = ["Safety and correctness", "Performance", "Features", "Operations", "Internals"];

/** The changelog: Unreleased first, sections with fixed names in a fixed order, entries as a list. */
export function checkChangelog(file: SourceFile): Problem[] {
  if (file.path !== "CHANGELOG.md") return [];
  const problems: Problem[] = [];
  const releases = file.text.split(/^## /m).slice(1);
  if (!releases[0]?.startsWith("Unreleased")) problems.push("CHANGELOG.md:1: '## Unreleased' comes first");
  for (const release of releases) {
    const found = [...release.matchAll(/^### (.+)$/gm)].map((match) => match[1] ?? "");
    const inOrder = sections.filter((section) => found.includes(section));
    if (found.join() !== inOrder.join()) {
      problems.push(
        `CHANGELOG.md:1: sections of '${release.split("\n")[0]}' are: ${sections.join(", ")}, in this order`,
      );
    }
  }
  return problems;
}

/** Parts that have no README saying what they are and what they may import. */
export function checkFolderReadmes(files: readonly SourceFile[]): Problem[] {
  return ["schema", "gateway", "worker", "native", "deploy", "test"]
    .filter((folder) => !files.some((file) => file.path === `${folder}/README.md`))
    .map((folder) => `${folder}/README.md:1: is missing`);
}
