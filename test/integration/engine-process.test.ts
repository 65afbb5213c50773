/** The engine process over its private channel, with the echo engine, under Bun and under Deno. */
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { sampleModelPath } from "../support/cluster.ts";
import { EngineClient, echoOf, textOf } from "../support/engine-client.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive } from "../support/processes.ts";

let started: EngineClient[] = [];
afterEach(async () => {
  for (const engine of started) engine.kill();
  await Promise.all(started.map((engine) => engine.exited));
  started = [];
});

function start(options: ConstructorParameters<typeof EngineClient>[0] = {}): EngineClient {
  const engine = new EngineClient(options);
  started.push(engine);
  return engine;
}

async function startReady(
  options: ConstructorParameters<typeof EngineClient>[0] = {},
): Promise<EngineClient> {
  const engine = start(options);
  engine.loadEcho();
  await engine.waitFor("ready");
  return engine;
}

test.each(["bun", "deno"] as const)(
  "under %s it says hello, becomes ready, streams tokens with consecutive indices and ends with its input",
  async (runtime) => {
    const engine = await startReady({ runtime });
    engine.generate(7);
    const done = await engine.waitFor("done", 7);
    expect(engine.messages[0]).toMatchObject({ type: "hello", pid: engine.pid });
    const own = engine.of(7);
    expect(own[0]).toEqual({ type: "started", request: 7, prompt_tokens: 13 });
    let next = 0;
    for (const message of own) {
      if (message.type !== "tokens") continue;
      expect(message.first_index).toBe(next);
      next += message.tokens.length;
    }
    expect(next).toBe(20);
    expect(done).toMatchObject({ finish_reason: "length", prompt_tokens: 13, completion_tokens: 20 });
    expect(textOf(own)).toBe(echoOf("to be or not ", 20));
    engine.endInput();
    expect(await engine.exited).toBe(0);
  },
  30_000,
);

test.each(["bun", "deno"] as const)(
  "under %s it loads the engine libraries when told to warm up, waits, and ends with its input",
  async (runtime) => {
    const engine = start({ runtime });
    await engine.waitFor("hello");
    const maps = () => readFileSync(`/proc/${engine.pid}/maps`, "utf8");
    expect(maps()).not.toContain("libllama");
    engine.send({ op: "warm", engine: "llama" });
    await engine.waitFor("warm");
    for (const library of ["libsllm_llama.so", "libllama", "libggml-cpu-"]) expect(maps()).toContain(library);
    engine.endInput();
    expect(await engine.exited).toBe(0);
  },
  30_000,
);

test("without its engine libraries it cannot warm up, says so and ends", async () => {
  const engine = start({ variables: { SLLM_ENGINE_LIBRARIES: "/nowhere/libraries" } });
  engine.send({ op: "warm", engine: "llama" });
  const { error } = await engine.waitFor("failed");
  expect(error).toMatchObject({
    code: "native_unavailable",
    message: expect.stringContaining("/nowhere/libraries"),
  });
  expect(await engine.exited).toBe(1);
});

test("a held request takes tokens from elsewhere, says when it has them, and goes on after them", async () => {
  const engine = await startReady({ variables: { SLLM_ECHO_TOKEN_US: "2000" } });
  engine.generate(1);
  await eventually("it runs", () => engine.of(1).find((message) => message.type === "tokens"));
  engine.send({ op: "hold", request: 1 });
  const { completion_tokens } = await engine.waitFor("held", 1);
  const said = textOf(engine.of(1));
  expect(said.length).toBe(completion_tokens);

  engine.generate(2, { held: true, resume: { prompt: [...Buffer.from("to be or not ")], output: [] } });
  const half = completion_tokens >> 1;
  const bytes = [...Buffer.from(said)];
  engine.send({ op: "extend", request: 2, tokens: bytes.slice(0, half), go: false });
  await eventually("it has them", () =>
    engine.of(2).some((message) => message.type === "held" && message.completion_tokens === half),
  );
  engine.send({ op: "extend", request: 2, tokens: bytes.slice(half), go: true });
  await engine.waitFor("done", 2);
  const other = engine.of(2).filter((message) => message.type !== "held");
  expect(other[0]).toMatchObject({ type: "started", resumed_text: said });
  expect(said + textOf(other)).toBe(echoOf("to be or not ", 20));

  engine.send({ op: "extend", request: 1, tokens: [], go: true });
  await engine.waitFor("done", 1);
  expect(textOf(engine.of(1))).toBe(echoOf("to be or not ", 20));
}, 30_000);

test.each(["bun", "deno"] as const)(
  "under %s it says that it lives, and what its engine is at",
  async (runtime) => {
    const engine = start({ runtime, variables: { SLLM_ECHO_TOKEN_US: "20000" } });
    await eventually("it lives without a model", () =>
      engine.messages.some((message) => message.type === "beat" && message.activity === null),
    );
    engine.loadEcho();
    await engine.waitFor("ready");
    for (const request of [1, 2, 3]) engine.generate(request, { max_tokens: 200 });
    const { activity } = await eventually("two run and one waits", () =>
      engine.messages
        .filter((message) => message.type === "beat")
        .find((message) => (message.activity?.waiting ?? 0) > 0),
    );
    expect(activity).toMatchObject({ slots: 2, running: 2, waiting: 1, kv_tokens: 512 });
    expect(activity?.computed_tokens).toBeGreaterThan(0);
  },
  30_000,
);

test("memory beyond its limit ends the start of a model with a reason; within it the same model is built", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-limit-"));
  try {
    const { directory, manifest } = await convertGguf({ source: sampleModelPath, store_dir: folder });
    // A cache of 1 GiB: 1 KiB for each token.
    const build = {
      op: "build",
      engine: "llama",
      header_path: path.join(directory, "header.gguf"),
      weights_bytes: manifest.weights.bytes,
      context_tokens: 131_072,
      slots: 8,
      threads: 1,
    } as const;
    const roomy = start();
    roomy.send({ op: "limit", private_bytes: 3 * 2 ** 30 });
    roomy.send(build);
    await roomy.waitFor("built");
    const tight = start();
    tight.send({ op: "limit", private_bytes: 2 ** 28 });
    tight.send(build);
    expect(await tight.exited).not.toBe(0);
    expect(tight.messages.some((message) => message.type === "built")).toBe(false);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 30_000);

test("the exit command ends it too, in mid-generation", async () => {
  const engine = await startReady({ variables: { SLLM_ECHO_TOKEN_US: "10000" } });
  engine.generate(1, { max_tokens: 200 });
  await engine.waitFor("tokens", 1);
  engine.send({ op: "exit" });
  expect(await engine.exited).toBe(0);
});

test("a cancelled request ends with its error and leaves its slot to the next", async () => {
  const engine = await startReady({ variables: { SLLM_ECHO_TOKEN_US: "20000" } });
  for (const request of [1, 2, 3]) engine.generate(request, { max_tokens: 200 });
  await engine.waitFor("tokens", 2);
  expect(engine.of(3)).toEqual([]);
  engine.send({ op: "cancel", request: 1 });
  expect((await engine.waitFor("error", 1)).error.code).toBe("cancelled");
  await engine.waitFor("started", 3);
  engine.send({ op: "cancel", request: 1 });
  await engine.waitFor("tokens", 3);
});

test("a prompt beyond the context is refused with both numbers, and the engine goes on", async () => {
  const engine = await startReady();
  engine.generate(1, { prompt: { kind: "text", text: "x".repeat(300) } });
  const { error } = await engine.waitFor("error", 1);
  expect(error.code).toBe("context_length_exceeded");
  expect(error.message).toContain("300 tokens");
  expect(error.message).toContain("256 tokens");
  engine.generate(2);
  await engine.waitFor("done", 2);
});

test("an empty prompt is refused as the request's fault", async () => {
  const engine = await startReady();
  engine.generate(1, { prompt: { kind: "text", text: "" } });
  expect((await engine.waitFor("error", 1)).error.code).toBe("invalid_request");
});

test("a request before the model is there is refused", async () => {
  const engine = start();
  engine.generate(1);
  expect((await engine.waitFor("error", 1)).error.code).toBe("model_loading");
});

test("many requests at once each get their own text", async () => {
  const engine = await startReady();
  const requests = Array.from({ length: 100 }, (_, i) => i + 1);
  for (const n of requests) {
    engine.generate(n, { prompt: { kind: "text", text: `number ${n}; ` }, max_tokens: 60 });
  }
  await Promise.all(requests.map((n) => engine.waitFor("done", n)));
  for (const n of requests) {
    expect(textOf(engine.of(n))).toBe(echoOf(`number ${n}; `, 60));
    expect(engine.of(n).filter((m) => m.type === "done" || m.type === "error")).toHaveLength(1);
  }
}, 30_000);

test("a library that is not there is named, and the process ends with status 1", async () => {
  const engine = start({ variables: { SLLM_NATIVE_LIBRARY: "/nowhere/libsllm.so" } });
  const { error } = await engine.waitFor("failed");
  expect(error.code).toBe("native_unavailable");
  expect(error.message).toContain("/nowhere/libsllm.so");
  expect(await engine.exited).toBe(1);
});

test("a model without its engine libraries fails the load by name, and the process ends", async () => {
  const engine = start({ variables: { SLLM_ENGINE_LIBRARIES: "/nowhere/libraries" } });
  engine.send({
    op: "load",
    engine: "llama",
    header_path: "/nowhere/header.gguf",
    weights_path: "/nowhere/weights",
    weights_bytes: 4096,
    context_tokens: 256,
    slots: 1,
    threads: 1,
  });
  const { error } = await engine.waitFor("failed");
  expect(error.code).toBe("native_unavailable");
  expect(error.message).toContain("/nowhere/libraries");
  expect(await engine.exited).toBe(1);
});

test("a command that is no JSON ends the process with a reason instead of being guessed at", async () => {
  const engine = await startReady();
  engine.sendRaw("{ nonsense\n");
  expect((await engine.waitFor("failed")).error.code).toBe("internal");
  expect(await engine.exited).toBe(1);
  expect(isAlive(engine.pid)).toBe(false);
});

const echoSkeleton = {
  engine: "echo",
  header_path: "",
  weights_bytes: 0,
  context_tokens: 256,
  slots: 2,
  threads: 1,
} as const;

test("a skeleton refuses requests until it has weights, which may be asked for while it is built", async () => {
  const engine = start();
  engine.send({ op: "build", ...echoSkeleton });
  await engine.waitFor("built");
  engine.generate(1);
  expect((await engine.waitFor("error", 1)).error.code).toBe("model_loading");
  engine.send({ op: "attach", weights_path: "" });
  await engine.waitFor("ready");
  engine.generate(2);
  await engine.waitFor("done", 2);
  const other = start();
  other.send({ op: "build", ...echoSkeleton });
  other.send({ op: "attach", weights_path: "" });
  await other.waitFor("ready");
});

test("a parked engine refuses requests, lets go what it kept, answers again and ends in order", async () => {
  const engine = await startReady();
  for (let round = 1; round <= 3; round++) {
    engine.generate(round);
    await engine.waitFor("done", round);
    engine.messages.length = 0;
    engine.send({ op: "park", keep_weights: true });
    expect(await engine.waitFor("parked")).toMatchObject({ weights_kept: true });
    engine.messages.length = 0;
    engine.send({ op: "park", keep_weights: false });
    expect(await engine.waitFor("parked")).toMatchObject({ weights_kept: false });
    engine.generate(10 + round);
    expect((await engine.waitFor("error", 10 + round)).error.code).toBe("model_loading");
    engine.send({ op: "attach", weights_path: "" });
    await engine.waitFor("ready");
  }
  engine.send({ op: "park", keep_weights: true });
  engine.endInput();
  expect(await engine.exited).toBe(0);
});
