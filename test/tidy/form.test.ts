/** The form of files in the whole repository, and that the checks can fail. */
import { describe, expect, test } from "bun:test";
import { checkBannedCalls } from "./rules/banned-calls.ts";
import * as form from "./rules/form.ts";
import { type Problem, readSources, type SourceFile, sample } from "./rules/sources.ts";

const sources = readSources();
const lines = (count: number, text = "x();") => Array.from({ length: count }, () => text).join("\n");

describe("in the whole repository", () => {
  const rules: [string, (file: SourceFile) => Problem[]][] = [
    ["files are short enough to read, or say why not", form.checkFileLength],
    ["functions fit a screen", form.checkFunctionLength],
    ["lines fit beside another file", form.checkColumns],
    ["every file begins by saying what it is", form.checkOpeningComment],
    ["names of files say what they hold", form.checkFileName],
    ["no check is suppressed without a reason", form.checkSuppressions],
    ["nothing unfinished is left over", form.checkLeftovers],
    ["no path of one machine is written down", form.checkMachinePaths],
    ["modes and sizes of files are right", form.checkModeAndSize],
    ["names of tests are sentences", form.checkTestNames],
    ["calls with one home stay there", checkBannedCalls],
  ];
  test.each(rules)("%s", (_, rule) => {
    expect(sources.flatMap(rule)).toEqual([]);
  });
});

describe("banned calls are found", () => {
  test.each([
    ["gateway/dispatch/a.ts", "const now = Date.now();"],
    ["gateway/dispatch/a.ts", "const now = performance.now();"],
    ["gateway/scheduler/a.ts", "const draw = Math.random();"],
    ["worker/instances/a.ts", "const x = process.env.HOME;"],
    ["gateway/http/a.ts", "console.log(1);"],
    ["gateway/store/a.ts", "await Bun.sleep(1);"],
    ["worker/instances/a.ts", 'Bun.spawn(["x"]);'],
    ["gateway/http/a.ts", "process.exit(1);"],
    ["gateway/http/a.ts", 'const bytes = Buffer.from("a");'],
    ["worker/http/a.ts", "setInterval(() => {}, 1);"],
  ])("in %s: %s", (path, text) => {
    expect(checkBannedCalls(sample(path, text)).length).toBeGreaterThan(0);
  });

  test.each([
    ["gateway/main/bun.ts", "Bun.serve({}); process.env.HOME; Date.now();"],
    ["gateway/dispatch/a.ts", '// Date.now()\nconst text = "Date.now()";'],
    ["gateway/dispatch/a.ts", "clock.wallMs(); new Date(at_ms);"],
  ])("but not at home, in comments or strings: %s: %s", (path, text) => {
    expect(checkBannedCalls(sample(path, text))).toEqual([]);
  });
});

describe("the form of files is checked", () => {
  test("a file over the bound needs its reason in the opening comment", () => {
    const long = lines(form.fileLinesMax + 1);
    expect(form.checkFileLength(sample("schema/a.ts", long))).toHaveLength(1);
    const excused = `/** Longer than 300 lines because it is one table. */\n${long}`;
    expect(form.checkFileLength(sample("schema/a.ts", excused))).toEqual([]);
    expect(form.checkFileLength(sample("schema/a.ts", lines(form.fileLinesMax)))).toEqual([]);
  });

  test.each([
    ["a.ts", "export async function f(): Promise<void> {", "}"],
    ["a.ts", "const f = (a: number): number => {", "};"],
    ["a.ts", "  async read(bytes: number): Promise<void> {", "  }"],
    ["a.ts", "  #take(x: number): void {", "  }"],
    ["a.cc", "int Engine::run(int x) {", "}"],
  ])("a long function is found in %s: %s", (path, head, tail) => {
    const of = (count: number) => `${head}\n${lines(count, "      x();")}\n${tail}`;
    expect(form.checkFunctionLength(sample(`schema/${path}`, of(form.functionLinesMax - 1)))).toHaveLength(1);
    expect(form.checkFunctionLength(sample(`schema/${path}`, of(form.functionLinesMax - 2)))).toEqual([]);
  });

  test("a suite of tests is no function", () => {
    const suite = `describe("a", () => {\n${lines(100, "  x();")}\n});`;
    expect(form.checkFunctionLength(sample("schema/a.test.ts", suite))).toEqual([]);
  });

  test.each([
    ["schema/a.ts", 'import { z } from "zod";\n'],
    ["schema/a.ts", "/** A. */\nexport const a = 1;\n"],
    ["native/core/a.cc", '#include "core/a.h"\n'],
  ])("a file without an opening comment is found: %s: %p", (path, text) => {
    expect(form.checkOpeningComment(sample(path, text))).toHaveLength(1);
  });

  test("an opening comment may follow the line for the shell", () => {
    const text = "#!/usr/bin/env node\n/** Runs the command line of the project. */\n";
    expect(form.checkOpeningComment(sample("deploy/bin/a.mjs", text))).toEqual([]);
  });

  test.each(["gateway/utils.ts", "worker/helpers.ts", "gateway/readFile.ts", "native/core/read-file.cc"])(
    "the name %s is refused",
    (path) => {
      expect(form.checkFileName(sample(path, ""))).toHaveLength(1);
    },
  );

  test.each([
    "const a = b as any;",
    "function f(a: any) {}",
    `// @ts-${"ignore"}`,
    "// biome-ignore lint/style/x",
    "f();\nconst a = b as unknown as C;",
    "try { f(); } catch {}",
  ])("the escape %p is found", (text) => {
    expect(form.checkSuppressions(sample("schema/a.ts", text))).toHaveLength(1);
  });

  test("a suppression with its reason is allowed", () => {
    const text = "// biome-ignore lint/style/x: the wire format wants it\n";
    expect(form.checkSuppressions(sample("schema/a.ts", text))).toEqual([]);
    const cast = "// The library's types say too little.\nconst a = b as unknown as C;";
    expect(form.checkSuppressions(sample("schema/a.ts", cast))).toEqual([]);
  });

  test("leftovers, machine paths, modes, sizes and columns are found", () => {
    expect(form.checkLeftovers(sample("schema/a.ts", `// ${"TO"}DO: later`))).toHaveLength(1);
    expect(form.checkMachinePaths(sample("schema/a.ts", 'const a = "/home/me/x";'))).toHaveLength(1);
    expect(form.checkModeAndSize(sample("schema/a.ts", "x", { isExecutable: true }))).toHaveLength(1);
    expect(form.checkModeAndSize(sample("deploy/a.mjs", "#!/usr/bin/env node\n"))).toHaveLength(1);
    expect(form.checkModeAndSize(sample("schema/a.json", "", { bytes: 1024 * 1024 }))).toHaveLength(1);
    expect(form.checkColumns(sample("native/core/a.cc", "x".repeat(form.columnsMax + 1)))).toHaveLength(1);
  });

  test.each(['test("works", f);', 'test("should return a value", f);', 'test.each([1])("ok %p", f);'])(
    "the test name in %s is refused",
    (text) => {
      expect(form.checkTestNames(sample("schema/a.test.ts", text))).toHaveLength(1);
    },
  );
});
