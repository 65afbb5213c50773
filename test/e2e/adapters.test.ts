/** LoRA adapters through a whole cluster: added by the command line, answering as an engine alone does. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import OpenAI from "openai";
import { adapterList } from "../../schema/api/adapters.ts";
import { completionResponse } from "../../schema/api/answers.ts";
import { errorBody } from "../../schema/error.ts";
import { convertAdapter } from "../../worker/checkpoints/import.ts";
import { type AdapterWish, writeAdapter } from "../models/generator/adapter.ts";
import { sampleModelPath } from "../models/generator/vocabulary.ts";
import { TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { DirectEngine } from "../support/direct-engine.ts";
import { eventually } from "../support/eventually.ts";
import { HostCopies } from "../support/host-copies.ts";
import { openNativeLibrary } from "../support/native.ts";
import { floatingPoint, spoilHeader, valueAt, wholeNumber } from "../support/spoiled-checkpoint.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(path.join(tmpdir(), "sllm-adapters-"));
const prompt = "to be or not ";
let cluster: TestCluster;
let client: OpenAI;

beforeAll(async () => {
  cluster = await TestCluster.start();
  await cluster.deploy("poet", undefined, { context_tokens: 256, slots: 2 });
  client = new OpenAI({ baseURL: `${cluster.url}/v1`, apiKey: "none", maxRetries: 0 });
}, 120_000);
afterAll(async () => {
  await cluster?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

/** `sllm adapter ...` on the host that has the store. */
const sllm = (...args: string[]) =>
  runProgram(programs.sllm, ["adapter", ...args, "--url", cluster.url, "--data-dir", cluster.folder], {
    folder,
  });
const write = (name: string, wish: AdapterWish) => writeAdapter(path.join(folder, `${name}.gguf`), wish);

/** A greedy answer of 20 tokens. */
async function complete(model: string): Promise<string> {
  const body = { model, prompt, max_tokens: 20, temperature: 0, ignore_eos: true };
  const response = await cluster.post("/v1/completions", body);
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return completionResponse.parse(await response.json()).choices[0]?.text ?? "";
}

async function directAnswers(): Promise<string[]> {
  using copies = new HostCopies(await openNativeLibrary());
  const engine = new DirectEngine(copies);
  try {
    const { digest } = await cluster.convert(sampleModelPath);
    await engine.load(path.join(cluster.storeFolder, digest));
    const { data } = adapterList.parse(await (await fetch(`${cluster.url}/admin/v1/adapters`)).json());
    for (const [i, { checkpoint }] of data.entries()) {
      await engine.add(i + 1, path.join(cluster.storeFolder, checkpoint));
    }
    return [await engine.answer(), await engine.answer({ adapter: 1 }), await engine.answer({ adapter: 2 })];
  } finally {
    engine.client.kill();
    await engine.client.exited;
  }
}

test("two adapters and their base give three answers, each that of an engine alone", async () => {
  for (const [name, seed] of [
    ["one", 1],
    ["two", 2],
  ] as const) {
    const added = await sllm("add", `poet:${name}`, write(name, { seed }));
    expect(added).toMatchObject({ status: 0, out: expect.stringContaining(`poet:${name} is added`) });
  }
  const models = ["poet", "poet:one", "poet:two"];
  const answers = await Promise.all(models.map(complete));
  expect(new Set(answers).size).toBe(3);
  expect(answers).toEqual(await directAnswers());
  // One instance has answered all of them, and does so again.
  expect(await Promise.all(models.toReversed().map(complete))).toEqual(answers.toReversed());
  expect(await cluster.adminInstances()).toHaveLength(1);
});

test("the official client lists adapters, streams from one, and hears of unknown ones", async () => {
  const listed = await client.models.list();
  expect(listed.data.map(({ id }) => id)).toEqual(["poet", "poet:one", "poet:two"]);
  expect(await client.models.retrieve("poet:two")).toMatchObject({ id: "poet:two", parent: "poet" });
  const messages = [{ role: "user" as const, content: "Speak" }];
  const stream = await client.chat.completions.create({
    model: "poet:two",
    messages,
    max_tokens: 8,
    stream: true,
  });
  let named = "";
  for await (const chunk of stream) named = chunk.model;
  expect(named).toBe("poet:two");
  const unknown = await cluster.post("/v1/chat/completions", { model: "poet:three", messages });
  const { error } = errorBody.parse(await unknown.json());
  expect([unknown.status, error.code]).toEqual([404, "adapter_not_found"]);
  expect(error.message).toContain("one, two");
});

test("the command line lists adapters, removes them, and says what is wrong with files", async () => {
  await sllm("add", "poet:spare", write("spare", { seed: 3 }));
  expect((await sllm("ls", "poet")).out).toMatch(/poet:one +poet +4 .*\n(.*\n)?poet:two/);
  expect(await sllm("rm", "poet:spare")).toMatchObject({ status: 0 });
  const again = await sllm("rm", "poet:spare");
  expect(again.status).toBe(1);
  expect(again.err).toContain("Adapters of the model: one, two.");
  const narrow = { name: "blk.0.attn_q.weight", columns: 128, rows: 256 };
  const refused = await sllm("add", "poet:narrow", write("narrow", { seed: 4, targets: [narrow] }));
  expect(refused.status).toBe(1);
  expect(refused.err).toContain("blk.0.attn_q.weight.lora_a");
  expect((await sllm("add", "poet:whole", sampleModelPath)).err).toContain("no LoRA adapter");
  expect((await sllm("add", "poet", write("one", { seed: 1 }))).err).toContain("<model>:<adapter>");
  const deploy = [
    "deploy",
    "wrong",
    write("one", { seed: 1 }),
    "--url",
    cluster.url,
    "--data-dir",
    cluster.folder,
  ];
  expect((await runProgram(programs.sllm, deploy, { folder })).err).toContain("sllm adapter add");
});

test("an abort of the engine library ends its instance, whose error holds the library's last words", async () => {
  // The library insists on a floating-point number there, and asserts it. No conversion lets another one through.
  const source = write("abort", { seed: 5 });
  const good = await convertAdapter({ source, store_dir: cluster.storeFolder });
  const { manifest } = spoilHeader(good, (header) => {
    const type = valueAt(header, "adapter.lora.alpha");
    if (header.readUInt32LE(type) !== floatingPoint) throw new Error("alpha is not where it should be");
    header.writeUInt32LE(wholeNumber, type);
  });
  const added = await cluster.post("/admin/v1/adapters", { model: "poet", name: "abort", manifest });
  expect(added.status).toBe(201);
  const response = await cluster.post("/v1/completions", { model: "poet:abort", prompt, max_tokens: 4 });
  const { error } = errorBody.parse(await response.json());
  expect([response.status, error.code]).toEqual([502, "engine_failed"]);
  const words = await eventually("the worker has told its last words", async () => {
    const messages = (await cluster.adminInstances(4)).map((one) => one.error?.message ?? "");
    return messages.find((message) => message.includes("last words"));
  });
  expect(words).toMatch(/SIGABRT\. Its last words:[\s\S]*GGML_ASSERT/);
  // They are for operators: they may quote what is none of a client's business.
  expect(error.message).not.toContain("GGML_ASSERT");
  // The model itself is served again.
  expect(await complete("poet")).not.toBe("");
}, 120_000);
