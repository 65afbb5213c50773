/** Precedence of flags, variables and file, and that every problem names the place where it can be mended. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FlagSetting, isSettingVariable, readSettings } from "./settings.ts";

const folder = mkdtempSync(join(tmpdir(), "sllm-settings-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function fileWith(text: string): string {
  const path = join(folder, `settings-${files++}.yaml`);
  writeFileSync(path, text);
  return path;
}

const port = (value: unknown): FlagSetting => ({ flag: "--port", path: ["gateway", "port"], value });

function read(flags: FlagSetting[], variables: Record<string, string>, yaml?: string) {
  const path = yaml === undefined ? undefined : fileWith(yaml);
  return { path, ...readSettings(flags, path, { variables, folder, root: "/project" }) };
}

/** The error's message with the file's path shortened. */
function problemOf(flags: FlagSetting[], variables: Record<string, string>, yaml?: string): string {
  const path = yaml === undefined ? undefined : fileWith(yaml);
  try {
    readSettings(flags, path, { variables, folder, root: "/project" });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return path === undefined ? text : text.replaceAll(path, "FILE");
  }
  return "(none)";
}

describe("precedence", () => {
  test("without anything the defaults hold, with the data folder in the project", () => {
    const settings = read([], {});
    expect(settings.config.gateway.port).toBe(8343);
    expect(settings.config.data_dir).toBe("/project/.sllm");
    expect(settings.isSet("gateway", "port")).toBe(false);
  });

  test("a flag comes before a variable, a variable before the file", () => {
    const yaml = "gateway: { port: 1, keep_alive_ms: 3, hold_ms: 3 }";
    const variables = { SLLM_GATEWAY_PORT: "2", SLLM_GATEWAY_KEEP_ALIVE_MS: "2" };
    const { config, isSet } = read([port("9")], variables, yaml);
    expect(config.gateway).toMatchObject({ port: 9, keep_alive_ms: 2, hold_ms: 3 });
    expect(isSet("gateway", "hold_ms")).toBe(true);
  });

  test("lists are written with commas in variables and as lists in the file", () => {
    const gateways = ["http://a:1", "http://b:2"];
    expect(read([], { SLLM_WORKER_GATEWAYS: gateways.join(",") }).config.worker.gateways).toEqual(gateways);
    const yaml = `worker:\n  gateways: [${gateways.join(", ")}]`;
    expect(read([], {}, yaml).config.worker.gateways).toEqual(gateways);
  });

  test("a data folder is relative to where it was said", () => {
    expect(read([], {}, "data_dir: here").config.data_dir).toBe(join(folder, "here"));
    expect(read([], { SLLM_DATA_DIR: "there" }).config.data_dir).toBe(join(folder, "there"));
    expect(read([], { SLLM_DATA_DIR: "/there" }).config.data_dir).toBe("/there");
  });

  test("SLLM_CONFIG names the file, --config comes before it", () => {
    const first = fileWith("gateway: { port: 11 }");
    const second = fileWith("gateway: { port: 12 }");
    const surroundings = { variables: { SLLM_CONFIG: first }, folder, root: "/project" };
    expect(readSettings([], undefined, surroundings).config.gateway.port).toBe(11);
    expect(readSettings([], second, surroundings).config.gateway.port).toBe(12);
  });
});

describe("problems", () => {
  test("a bad value in the file is reported with its line", () => {
    const yaml = "data_dir: x\ngateway:\n  host: 127.0.0.1\n  port: 99999\n";
    expect(problemOf([], {}, yaml)).toStartWith("FILE:4: gateway.port: ");
  });

  test("a setting that does not exist is reported with its line", () => {
    expect(problemOf([], {}, "gateway:\n  prot: 1\n")).toBe("FILE:2: gateway.prot: there is no such setting");
  });

  test("a bad variable and a bad flag are reported by their names", () => {
    expect(problemOf([], { SLLM_GATEWAY_PORT: "x" })).toStartWith("SLLM_GATEWAY_PORT (gateway.port): ");
    expect(problemOf([port("x")], { SLLM_GATEWAY_PORT: "1" })).toStartWith("--port (gateway.port): ");
  });

  test("broken YAML is reported with its line", () => {
    expect(problemOf([], {}, "gateway:\n  port: [1\n")).toMatch(/^FILE:\d: /);
  });

  test("a file that holds no settings is refused", () => {
    expect(problemOf([], {}, "- 1\n- 2\n")).toStartWith("FILE: expected settings");
  });

  test("an empty file is no settings at all", () => {
    expect(problemOf([], {}, "")).toBe("(none)");
  });

  test("a file that is not there is refused, named by flag or variable", () => {
    const surroundings = { variables: {}, folder, root: "/project" };
    expect(() => readSettings([], "missing.yaml", surroundings)).toThrow("cannot read the settings file");
  });

  test("aliases that would blow up are refused", () => {
    expect(problemOf([], {}, "a: &a [1, 1]\nb: [*a, *a]\n")).not.toBe("(none)");
  });
});

test("variables of settings are told from other SLLM_ variables", () => {
  expect(["SLLM_DATA_DIR", "SLLM_GATEWAY_PORT", "SLLM_WORKER_THREADS"].every(isSettingVariable)).toBe(true);
  expect(["SLLM_CONFIG", "SLLM_NATIVE_LIBRARY", "PATH"].some(isSettingVariable)).toBe(false);
});
