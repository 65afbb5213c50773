/** The counting of results: a report read wrongly would turn failures into passes. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { addFailure, addResults, noResults, parseJunit, totalLine } from "./results.mjs";
import { selectStages, stages } from "./stages.mjs";

const bunReport = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="4" failures="1" skipped="2">
  <testsuite name="a.test.ts" file="a.test.ts" tests="4">
    <testcase name="passes &amp; more" classname="group" time="0" file="a.test.ts" line="2" assertions="1" />
    <testcase name="fails" classname="group" time="0.1" file="a.test.ts" line="3">
      <failure type="AssertionError" message="short">expected &lt;1&gt;&#10;received 2</failure>
    </testcase>
    <testcase name="skips" classname="group" file="a.test.ts"><skipped /></testcase>
    <testcase name="todo" classname="group" file="a.test.ts"><skipped message="TODO" /></testcase>
  </testsuite>
</testsuites>`;

const ctestReport = `<testsuite name="Linux" tests="3" failures="1" disabled="0" skipped="1">
  <testcase name="utf8_test" classname="utf8_test" time="0.01" status="run"><system-out>ok</system-out></testcase>
  <testcase name="load_test" classname="load_test" time="0.02" status="fail">
    <failure message=""/>
    <system-out>load_test.cc:12: 3 != 4</system-out>
  </testcase>
  <testcase name="direct_test" classname="direct_test" status="notrun">
    <skipped message="SKIP_RETURN_CODE=77"/>
    <system-out></system-out>
  </testcase>
</testsuite>`;

describe("reports", () => {
  test("of Bun are counted, failures with their text", () => {
    expect(parseJunit(bunReport)).toEqual({
      passed: 1,
      failed: 1,
      skipped: 2,
      failures: [{ name: "a.test.ts > group > fails", text: "expected <1>\nreceived 2" }],
    });
  });

  test("of CTest are counted, failures with the test's output", () => {
    expect(parseJunit(ctestReport)).toEqual({
      passed: 1,
      failed: 1,
      skipped: 1,
      failures: [{ name: "load_test", text: "load_test.cc:12: 3 != 4" }],
    });
  });

  test("without cases count nothing", () => {
    expect(parseJunit("<testsuites></testsuites>")).toEqual(noResults());
  });

  test("add up to the last line", () => {
    const total = noResults();
    addResults(total, parseJunit(bunReport));
    addResults(total, parseJunit(ctestReport));
    addFailure(total, "fuzz", "did not end");
    expect(totalLine(total)).toBe("2 passed, 3 failed, 3 skipped");
    expect(total.failures).toHaveLength(3);
  });
});

describe("stages", () => {
  const root = join(import.meta.dir, "../..");
  const names = (filter?: string) => selectStages(root, filter).map((stage) => stage.name);

  test("without a filter all with something to run are chosen, in order", () => {
    const order = stages.map((stage) => stage.name);
    expect(names()).toEqual(order.filter((name) => names().includes(name)));
    expect(names()).toContain("types");
    expect(names()).toContain("unit");
  });

  test("a stage's name chooses it and its variants", () => {
    expect(names("native").filter((name) => name.startsWith("native"))).toEqual([
      "native",
      "native-sanitize",
    ]);
    expect(names("tidy")).toContain("tidy");
  });

  test("any other filter chooses test files by their path", () => {
    const chosen = selectStages(root, "runner/results");
    expect(chosen).toHaveLength(1);
    expect(chosen[0]).toMatchObject({ name: "unit", files: ["test/runner/results.test.ts"] });
  });

  test("a filter that matches nothing chooses nothing", () => {
    expect(names("no-such-test")).toEqual([]);
  });

  test("every test file of the repository belongs to a stage", async () => {
    const inStages = new Set(
      selectStages(root, undefined).flatMap((stage) => ("files" in stage ? stage.files : [])),
    );
    const all = [...new Bun.Glob("{schema,gateway,worker,native,deploy,test}/**/*.test.ts").scanSync(root)];
    expect(all.filter((file) => !inStages.has(file) && !file.includes("/vendor/"))).toEqual([]);
  });
});
