/** What is declared in schema and documents is used and true, and that the checks can fail. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import * as contracts from "./rules/contracts.ts";
import * as documents from "./rules/documents.ts";
import { readSources, root, sample } from "./rules/sources.ts";

const sources = readSources();

describe("in the whole repository", () => {
  test("every limit is used and has its reason", () => {
    expect(contracts.checkLimits(sources)).toEqual([]);
  });

  test("every error code is raised somewhere", () => {
    expect(contracts.checkCodes(sources)).toEqual([]);
  });

  test("every variable that is read is documented", () => {
    expect(contracts.checkVariables(sources)).toEqual([]);
  });

  test("every dependency has an exact version", () => {
    expect(contracts.checkDependencies(readFileSync(path.join(root, "package.json"), "utf8"))).toEqual([]);
  });

  test("the README is short, and every part has one", () => {
    expect(sources.flatMap(documents.checkReadmeLength)).toEqual([]);
    expect(documents.checkFolderReadmes(sources)).toEqual([]);
  });

  test("links between documents lead somewhere", () => {
    expect(sources.flatMap((file) => documents.checkLinks(file, sources))).toEqual([]);
  });

  test("the changelog has its form", () => {
    expect(sources.flatMap(documents.checkChangelog)).toEqual([]);
  });
});

describe("the checks can fail", () => {
  const limits = sample(
    "schema/limits.ts",
    "export const limits = {\n  /** Why. */\n  a_bytes: 1,\n  b_ms: 2,\n};\n",
  );

  test("on a limit without a comment and on one that is not used", () => {
    const user = sample("gateway/a.ts", "limits.a_bytes");
    expect(contracts.checkLimits([limits, user])).toEqual([
      "schema/limits.ts:4: b_ms has no comment with its reason",
      "schema/limits.ts:4: b_ms is not used",
    ]);
    const inTest = sample("gateway/a.test.ts", "limits.b_ms");
    expect(contracts.checkLimits([limits, user, inTest])).toHaveLength(2);
  });

  test("on an error code that nothing raises, also when a comment names it", () => {
    const codes = sample("schema/codes.ts", "export const codes = {\n  lost: {\n    x: 1,\n  },\n};\n");
    expect(contracts.checkCodes([codes, sample("gateway/a.ts", '// "lost"')])).toHaveLength(1);
    expect(contracts.checkCodes([codes, sample("gateway/a.ts", 'fail("lost")')])).toEqual([]);
  });

  test("on a variable that no document names", () => {
    const reader = sample("worker/main/a.ts", "process.env.SLLM_SECRET_SWITCH");
    expect(contracts.checkVariables([reader])).toHaveLength(1);
    expect(contracts.checkVariables([reader, sample("a.md", "`SLLM_SECRET_SWITCH`")])).toEqual([]);
  });

  test.each(["^1.2.3", "~1.2.3", "latest", "1.x", ">=1.2.3", "1.2"])("on the version %p", (version) => {
    expect(contracts.checkDependencies(JSON.stringify({ dependencies: { a: version } }))).toHaveLength(1);
  });

  test("on a README that is too long, and on a part without one", () => {
    expect(documents.checkReadmeLength(sample("README.md", "x\n".repeat(151)))).toHaveLength(1);
    expect(documents.checkFolderReadmes([])).toHaveLength(6);
  });

  test("on links to files and headings that are not there, not on code", () => {
    const other = sample("docs/b.md", "# Some heading\n");
    const check = (text: string) => documents.checkLinks(sample("docs/a.md", text), [other]);
    expect(check("[x](b.md) [x](./b.md#some-heading) [x](https://x.y/z) `[x](gone.md)`")).toEqual([]);
    expect(check("[x](gone.md)")).toHaveLength(1);
    expect(check("[x](b.md#other)")).toHaveLength(1);
  });

  test("on a changelog with other sections or another order", () => {
    const check = (text: string) => documents.checkChangelog(sample("CHANGELOG.md", text));
    expect(check("# Changelog\n\n## Unreleased\n\n### Performance\n\n### Features\n")).toEqual([]);
    expect(check("# Changelog\n\n## Unreleased\n\n### Features\n\n### Performance\n")).toHaveLength(1);
    expect(check("# Changelog\n\n## Unreleased\n\n### News\n")).toHaveLength(1);
    expect(check("# Changelog\n\n## 1.0.0\n")).toHaveLength(1);
  });
});
