/** The import law and the layers of the native library, and that the checks can fail. */
import { describe, expect, test } from "bun:test";
import { checkImportLaw, findCycles, importsOf } from "./rules/import-law.ts";
import { checkNativeLayers } from "./rules/native-layers.ts";
import { readSources, sample } from "./rules/sources.ts";

const sources = readSources();
const problemsOf = (path: string, text: string) => checkImportLaw(sample(path, text));

describe("the repository", () => {
  test("is seen by the rules: they would pass on nothing", () => {
    for (const folder of ["schema", "gateway", "worker", "native", "deploy", "test"]) {
      expect(sources.filter((file) => file.path.startsWith(`${folder}/`)).length).toBeGreaterThan(3);
    }
  });

  test("obeys the import law", () => {
    expect(sources.flatMap(checkImportLaw)).toEqual([]);
  });

  test("has no circles of imports", () => {
    expect(findCycles(sources)).toEqual([]);
  });

  test("keeps the layers of the native library", () => {
    expect(sources.flatMap(checkNativeLayers)).toEqual([]);
  });
});

describe("the import law refuses", () => {
  test.each([
    ["schema/a.ts", 'import { x } from "../gateway/ports.ts";'],
    ["schema/a.ts", 'import { readFile } from "node:fs";'],
    ["gateway/ports.ts", 'import { limits } from "../schema/limits.ts";'],
    ["gateway/scheduler/a.ts", 'import type { Clock } from "../ports.ts";'],
    ["gateway/scheduler/a.ts", 'import { x } from "../placement/fleet.ts";'],
    ["gateway/placement/a.ts", 'import { x } from "../dispatch/dispatcher.ts";'],
    ["gateway/http/a.ts", 'import { createStateStore } from "../store/state-store.ts";'],
    ["gateway/dispatch/a.ts", 'import { createHttpWorkerClient } from "../workers/http-worker-client.ts";'],
    ["gateway/store/a.ts", 'import { join } from "node:path";'],
    ["gateway/a/b.ts", 'import { x } from "./c.ts";'],
    ["worker/http/a.ts", 'import { createApp } from "../../gateway/app.ts";'],
    ["worker/instances/a.ts", 'import { dlopen } from "bun:ffi";'],
    ["deploy/cli/a.ts", 'import { DiskTier } from "../../worker/checkpoints/disk-tier.ts";'],
    ["deploy/cli/a.ts", 'import { createApp } from "../../gateway/app.ts";'],
    ["deploy/scripts/a.mjs", 'import { parse } from "yaml";'],
    ["gateway/main/bun.ts", 'import { startPostgres } from "../../test/support/postgres.ts";'],
    ["gateway/http/a.test.ts", 'import { startCluster } from "../../test/e2e/cluster.ts";'],
    ["schema/a.ts", 'export { x } from "../worker/ports.ts";'],
    ["schema/a.ts", 'const x = await import("../worker/ports.ts");'],
    ["schema/a.ts", 'import { x } from "./limits";'],
  ])("in %s: %s", (path, text) => {
    expect(problemsOf(path, text)).toHaveLength(1);
  });
});

describe("the import law allows", () => {
  test.each([
    ["gateway/ports.ts", 'import type { ModelRow } from "../schema/db/tables.ts";'],
    ["gateway/ports.ts", 'import { type ModelRow } from "../schema/db/tables.ts";'],
    ["gateway/dispatch/a.ts", 'import { decide } from "../scheduler/decide.ts";'],
    ["gateway/main/bun.ts", 'import { createStateStore } from "../store/state-store.ts";'],
    ["worker/checkpoints/a.ts", 'import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";'],
    ["deploy/cli/a.ts", 'import { convertGguf } from "../../worker/checkpoints/import.ts";'],
    [
      "gateway/http/a.test.ts",
      'import { test } from "bun:test";\nimport { x } from "../../test/support/y.ts";',
    ],
    ["schema/a.ts", '// import { x } from "../gateway/ports.ts";\nexport const text = "x";'],
  ])("in %s: %s", (path, text) => {
    expect(problemsOf(path, text)).toEqual([]);
  });
});

test("imports over several lines and in every form are found", () => {
  const text = [
    'import a, { b } from "./a.ts";',
    'import {\n  type C,\n  type D,\n} from "./b.ts";',
    'import type { E } from "./c.ts";',
    'import "./d.ts";',
    'export * from "./e.ts";',
    'const f = () => import("./f.ts");',
    "const g = \"import x from './g.ts'\";",
  ].join("\n");
  expect(importsOf(text).map(({ specifier, isTypeOnly, line }) => [specifier, isTypeOnly, line])).toEqual([
    ["./a.ts", false, 1],
    ["./b.ts", true, 2],
    ["./c.ts", true, 6],
    ["./d.ts", false, 7],
    ["./e.ts", false, 8],
    ["./f.ts", false, 9],
  ]);
});

test("a circle of value imports is found, one of types is none", () => {
  const a = sample("schema/a.ts", 'import { b } from "./b.ts";');
  const b = sample("schema/b.ts", 'import { a } from "./a.ts";');
  expect(findCycles([a, b])).toEqual([
    "schema/a.ts:1: import circle: schema/a.ts -> schema/b.ts -> schema/a.ts",
  ]);
  expect(findCycles([a, sample("schema/b.ts", 'import type { a } from "./a.ts";')])).toEqual([]);
});

test.each([
  ["native/core/a.cc", '#include "io/env.h"', 1],
  ["native/store/a.h", '#include "engine/engine.h"', 1],
  ["native/engine/a.cc", '#include "../core/status.h"', 1],
  ["native/tools/a.cc", '#include "core/status.h"', 1],
  ["native/engine/a.cc", '#include "store/load.h"\n#include "sllm/sllm.h"\n#include <vector>', 0],
])("an include in %s of %p has %p problems", (path, text, count) => {
  expect(checkNativeLayers(sample(path, text))).toHaveLength(count);
});
