/** The published schema and example say what the zod schema says. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { config, gatewayConfig, workerConfig } from "../../schema/config.ts";
import { configSchemaPath, configSchemaText } from "./config-schema.ts";
import { root } from "./settings/surroundings.ts";

const examplePath = join(root, "deploy", "sllm.example.yaml");

test("the published JSON schema is the one of the zod schema", () => {
  // When this fails: node_modules/.bin/bun deploy/cli/config-schema.ts
  expect(readFileSync(configSchemaPath, "utf8")).toBe(configSchemaText());
});

test("the example file holds the defaults", () => {
  expect(config.parse(parse(readFileSync(examplePath, "utf8")))).toEqual(config.parse({}));
});

test("the example file names every setting", () => {
  const text = readFileSync(examplePath, "utf8");
  const names = [config, gatewayConfig, workerConfig].flatMap((schema) => Object.keys(schema.shape));
  for (const name of names) expect(text).toMatch(new RegExp(`^\\s*(# )?${name}:`, "m"));
});
