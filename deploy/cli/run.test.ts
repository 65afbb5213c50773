/** Exit statuses, help and error texts of the dispatcher, with commands made for the purpose. */
import { describe, expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import type { Command } from "./command.ts";
import { CommandFailure, UsageError } from "./failure.ts";
import { run } from "./run.ts";

const greet: Command = {
  name: "greet",
  summary: "Say hello",
  args: { who: { type: "positional", description: "Whom" }, fail: { type: "string", description: "How" } },
  examples: [["sllm greet world", "says hello"]],
  async run(args) {
    const how = args.text("fail");
    if (how === "usage") throw new UsageError("not like this");
    if (how === "failure") throw new CommandFailure("no answer", { advice: "Start one." });
    if (how === "operation") throw new SllmError("checkpoint_invalid", "not a GGUF file");
    if (how === "defect") throw new TypeError("undefined is not a function");
    return 0;
  },
};

async function call(...line: string[]) {
  let out = "";
  let err = "";
  const terminal = {
    out: (text: string) => {
      out += text;
    },
    err: (text: string) => {
      err += text;
    },
  };
  const status = await run([greet], "1.2.3", line, terminal);
  return { status, out, err };
}

describe("the command line", () => {
  test("a command that works exits with 0 and its own output only", async () => {
    expect(await call("greet", "world")).toEqual({ status: 0, out: "", err: "" });
  });

  test("the version goes to standard output", async () => {
    expect(await call("--version")).toEqual({ status: 0, out: "1.2.3", err: "" });
  });

  test("help lists the commands; without a command it comes with status 2", async () => {
    const asked = await call("--help");
    expect(asked.status).toBe(0);
    expect(asked.out).toContain("greet  Say hello");
    expect((await call()).status).toBe(2);
  });

  test("a command's help shows arguments and examples, also after other arguments", async () => {
    const { status, out } = await call("greet", "world", "--help");
    expect(status).toBe(0);
    expect(out).toContain("Usage: sllm greet <who> [flags]");
    expect(out).toContain("  who  Whom");
    expect(out).toContain("  --fail <value>  How");
    expect(out).toContain("  sllm greet world  # says hello");
  });

  test("an unknown command is a usage error that lists the known ones", async () => {
    const { status, err } = await call("gret");
    expect(status).toBe(2);
    expect(err).toContain("there is no command 'gret'");
    expect(err).toContain("greet");
  });

  test("an unknown flag is a usage error that says where help is", async () => {
    const { status, err } = await call("greet", "world", "--loud");
    expect(status).toBe(2);
    expect(err).toContain("unknown flag --loud");
    expect(err).toContain("sllm greet --help");
  });

  test.each([
    ["usage", 2, "error: not like this\n'sllm greet --help' shows how it is used."],
    ["failure", 1, "error: no answer\nStart one."],
    ["operation", 1, "error: not a GGUF file (checkpoint_invalid)\nThe file is damaged"],
    ["defect", 1, "error: this is a defect of sllm:\nTypeError: undefined is not a function"],
  ])("a %s ends with status and advice", async (how, status, text) => {
    const result = await call("greet", "world", "--fail", how);
    expect(result.status).toBe(status);
    expect(result.out).toBe("");
    expect(result.err).toStartWith(text);
  });
});
