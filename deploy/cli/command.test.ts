/** What a command line means, and which ones are refused before anything is done. */
import { describe, expect, test } from "bun:test";
import { type Arguments, parseArguments } from "./command.ts";
import { UsageError } from "./failure.ts";

const args = {
  name: { type: "positional", description: "" },
  message: { type: "positional", required: false, description: "" },
  context: { type: "string", description: "" },
  "keep-alive": { type: "string", description: "" },
  verbose: { type: "boolean", alias: "v", description: "" },
  worker: { type: "boolean", default: true, description: "" },
} as const;

const parse = (...line: string[]): Arguments => parseArguments(args, line);

describe("arguments", () => {
  test("positions, flags and switches are read", () => {
    const parsed = parse("model", "hello", "--context", "4096", "-v", "--no-worker", "--keep-alive=5m");
    expect(parsed.required("name")).toBe("model");
    expect(parsed.text("message")).toBe("hello");
    expect(parsed.count("context", 16, 8192)).toBe(4096);
    expect(parsed.isOn("verbose")).toBe(true);
    expect(parsed.isOn("worker")).toBe(false);
    expect(parsed.duration("keep-alive")).toBe(300_000);
  });

  test("what is left out is undefined or the default", () => {
    const parsed = parse("model");
    expect(parsed.text("message")).toBeUndefined();
    expect(parsed.count("context", 16, 8192)).toBeUndefined();
    expect(parsed.isOn("verbose")).toBe(false);
    expect(parsed.isOn("worker")).toBe(true);
  });

  test("after -- everything is a position", () => {
    expect(parse("model", "--", "--not-a-flag").text("message")).toBe("--not-a-flag");
  });

  test("further positions are given to a command that takes them", () => {
    const parsed = parseArguments(args, ["model", "hello", "again", "--verbose", "and"], true);
    expect(parsed.text("message")).toBe("hello");
    expect(parsed.rest).toEqual(["again", "and"]);
  });

  test.each([
    [["model", "--colour"], "unknown flag --colour"],
    [["model", "-x"], "unknown flag -x"],
    [["model", "--no-colour"], "unknown flag --colour"],
    [["model", "--no-context"], "unknown flag --no-context"],
    [["model", "--context"], "--context needs a value"],
    [["model", "hello", "again"], "unexpected argument 'again'"],
    [[], "missing required positional argument: name"],
  ])("%p is refused", (line, message) => {
    expect(() => parse(...line)).toThrow(new UsageError(message));
  });

  test.each(["0", "16385", "12.5", "1e3", "-5", "many"])("the count %p is refused", (text) => {
    expect(() => parse("model", `--context=${text}`).count("context", 1, 16_384)).toThrow(
      "--context takes a whole",
    );
  });

  test.each([
    ["250ms", 250],
    ["30s", 30_000],
    ["2h", 7_200_000],
  ])("the time %p is %p ms", (text, expected_ms) => {
    expect(parse("model", `--keep-alive=${text}`).duration("keep-alive")).toBe(expected_ms);
  });

  test.each(["5", "5 m", "m", "1d", "-1s"])("the time %p is refused", (text) => {
    expect(() => parse("model", `--keep-alive=${text}`).duration("keep-alive")).toThrow(
      "--keep-alive takes a time",
    );
  });
});
