/** The files of the repository as the tidy rules see them: tracked ones, and new ones that git does not ignore. */
import { spawnSync } from "node:child_process";
import { lstatSync, readFileSync } from "node:fs";
import path from "node:path";

export const root = path.resolve(import.meta.dir, "../../..");

export interface SourceFile {
  /** Relative to the repository, with slashes. */
  readonly path: string;
  /** Empty for binary files. */
  readonly text: string;
  readonly bytes: number;
  readonly isExecutable: boolean;
}

/** `path:line: what is wrong`, as editors and people read it. */
export type Problem = string;

const binary = /\.(gguf|gz|png|bin)$/;

/** Every file of the repository. Throws when git does not answer: rules that see no files would all pass. */
export function readSources(): SourceFile[] {
  // The folder may belong to another user (a container's mount): git must not refuse for that.
  const args = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const { status, stdout, stderr } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error(`git ls-files failed: ${stderr}`);
  const names = [...new Set(stdout.split("\0").filter((name) => name !== ""))].sort();
  return names.flatMap((name) => {
    const stat = lstatSync(path.join(root, name), { throwIfNoEntry: false });
    if (stat === undefined || !stat.isFile()) return []; // deleted in the work tree, or a symbolic link
    const text = binary.test(name) ? "" : readFileSync(path.join(root, name), "utf8");
    return [{ path: name, text, bytes: stat.size, isExecutable: (stat.mode & 0o100) !== 0 }];
  });
}

/** A file made up for a test of a rule. */
export function sample(file: string, text: string, more: Partial<SourceFile> = {}): SourceFile {
  return { path: file, text, bytes: text.length, isExecutable: false, ...more };
}

/** Number of the line (from 1) on which the offset lies. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}

/** The text with comments blanked out, offsets and line ends kept. Strings stay: they may hold what looks like one. */
export function withoutComments(text: string): string {
  const blank = (part: string) => part.replace(/[^\n]/g, " ");
  return text.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (whole, quoted: string | undefined) => quoted ?? blank(whole),
  );
}

/** The text with the contents of strings blanked out too. Template strings keep theirs: they hold code. */
export function withoutStrings(text: string): string {
  const blank = (part: string) => `${part[0]}${part.slice(1, -1).replace(/[^\n]/g, " ")}${part[0]}`;
  return withoutComments(text).replace(/"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g, blank);
}

export const isTypeScript = (file: SourceFile) => file.path.endsWith(".ts");
export const isTest = (file: SourceFile) => file.path.startsWith("test/") || file.path.endsWith(".test.ts");
export const isNative = (file: SourceFile) => /^native\/.*\.(cc|h|c)$/.test(file.path);
