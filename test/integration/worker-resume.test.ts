/**
 * Generations that go on from tokens of before, on a worker with the sample model in the deterministic mode, under both
 * runtimes: wherever the cut falls, text before and text after are the undisturbed answer.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import type { GenerateRequest } from "../../schema/cluster/generate.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { writeToolModel } from "../models/generator/tool-model.ts";
import { sampleTokens } from "../models/generator/vocabulary.ts";
import { answers, joined, messageOf, sampled, text, tokensOf } from "../support/awkward-answers.ts";
import { eventually } from "../support/eventually.ts";
import { checkAsyncProperty } from "../support/property.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

// Some thousand tokens take seconds on a machine that is busy.
setDefaultTimeout(120_000);

const runtimes = ["bun", "deno"] as const;
const folder = mkdtempSync(path.join(tmpdir(), "sllm-resume-model-"));
const source = path.join(folder, "tools.gguf");
beforeAll(() => writeToolModel(source), 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every cut in the long form, else a few that chance picks. */
async function atCuts(cuts: readonly number[], holds: (cut: number) => Promise<void>): Promise<void> {
  if (process.env.SLLM_TEST_LONG) for (const cut of cuts) await holds(cut);
  else await checkAsyncProperty(fc.constantFrom(...cuts), holds, 5);
}

describe.each(runtimes)("under %s", (runtime) => {
  let host: WorkerHost;
  let instance_id: string;
  let fingerprint: string | undefined;
  beforeAll(async () => {
    host = await WorkerHost.start({ runtime });
    const { digest } = await convertGguf({ source, store_dir: host.store });
    instance_id = await host.loadReady(digest, { context_tokens: 1_024, slots: 2, deterministic: true });
    fingerprint = (await host.instance(instance_id))?.fingerprint;
  }, 60_000);
  afterAll(() => host?.close(), 60_000);

  const ask = (change: Partial<GenerateRequest>) =>
    host.generate(instance_id, { ignore_eos: false, max_tokens: 300, sampling: sampled("7"), ...change });

  /** Asks with the prompt's tokens, which a later run needs. */
  async function undisturbed(change: Partial<GenerateRequest>) {
    const events = await ask({ ...change, tell_prompt: true });
    const started = events.find((event) => event.type === "started");
    expect(started?.prompt).toHaveLength(started?.prompt_tokens ?? -1);
    expect(events.at(-1)?.type).toBe("done");
    return { events, prompt: started?.prompt ?? [], tokens: tokensOf(events) };
  }

  test.each(Object.entries(answers))("an answer is what it is without the cut: %s", async (_, change) => {
    const whole = await undisturbed(change);
    const cuts = whole.tokens.map((_, i) => i);
    await atCuts(cuts, async (cut) => {
      const before = whole.tokens.slice(0, cut);
      const resume = { prompt: whole.prompt, output: before.map((token) => token.token) };
      // What is rendered from the messages must not matter any more.
      const prompt =
        change.prompt?.kind === "text" ? text("Another prompt altogether").prompt : change.prompt;
      const events = await ask({ ...change, ...(prompt ? { prompt } : {}), resume });
      const started = events[0]?.type === "started" ? events[0] : null;
      expect(started?.prompt_tokens).toBe(whole.prompt.length);
      expect(started?.resumed_text ?? "").toBe(joined(before));
      expect(events.find((event) => event.type === "tokens")?.first_index).toBe(cut);
      expect(tokensOf(events)).toEqual(whole.tokens.slice(cut));
      expect(joined(before) + generatedText(events)).toBe(generatedText(whole.events));
      const { timings: _, cached_tokens: __, delta: ___, ...end } = Object(whole.events.at(-1));
      expect(events.at(-1)).toMatchObject(end);
    });
  });

  test("a tool call is put together from the pieces of both runs, wherever the first one told its last", async () => {
    const change = answers["a tool call"] ?? {};
    const whole = await undisturbed(change);
    const { calls } = messageOf(whole.events);
    expect(calls).toEqual([expect.stringMatching(/^weather: \{.*\}$/s)]);
    // Between two events it is known what was told.
    const borders = whole.events.flatMap((event, i) => (event.type === "tokens" ? [i] : []));
    await atCuts(borders, async (border) => {
      const before = whole.events.slice(0, border);
      const output = tokensOf(before).map((token) => token.token);
      const after = await ask({ ...change, resume: { prompt: whole.prompt, output } });
      expect(messageOf([...before, ...after])).toEqual(messageOf(whole.events));
    });
  });

  test("what cannot be the output of such a request is refused, and the engine goes on", async () => {
    const refused = async (resume: GenerateRequest["resume"], change: Partial<GenerateRequest> = {}) => {
      const last = (await ask({ ...text("A"), ...change, ...(resume ? { resume } : {}) })).at(-1);
      return last?.type === "error" ? last.error : null;
    };
    const foreign = { code: "invalid_request", message: expect.stringContaining(String(sampleTokens + 7)) };
    expect(await refused({ prompt: [5], output: [5, sampleTokens + 7] })).toMatchObject(foreign);
    expect(await refused({ prompt: [sampleTokens + 7], output: [] })).toMatchObject(foreign);
    const long = new Array(1_024).fill(5);
    const tooLong = { code: "context_length_exceeded", message: expect.stringContaining("1025 tokens") };
    expect(await refused({ prompt: [5], output: long })).toMatchObject(tooLong);
    const format = { kind: "grammar" as const, grammar: 'root ::= "yes" | "no"' };
    const { tokens } = await undisturbed({ ...text("A"), max_tokens: 8, ignore_eos: true });
    const output = tokens.map((token) => token.token);
    expect(await refused({ prompt: [5], output }, { format })).toMatchObject({ code: "invalid_request" });
    const negative = { prompt: [5], output: [-1] };
    await expect(ask({ ...text("A"), resume: negative })).rejects.toMatchObject({ code: "invalid_request" });
    expect((await ask({ ...text("A"), max_tokens: 2 })).at(-1)).toMatchObject({ type: "done" });
  });

  test("the fingerprint names checkpoint, library, processor and context, and nothing else differs by it", async () => {
    const checkpoint = (await host.status()).instances[0];
    expect(checkpoint).toBeDefined();
    expect(fingerprint).toMatch(
      /^[0-9a-f]{64}, llama \S+, ggml \S+, libggml-cpu\S* [0-9a-f]{16}, .*context 1024$/,
    );
  });

  test("a cancelled answer leaves its slot to the next within a tenth of a second", async () => {
    const { digest } = await convertGguf({ source, store_dir: host.store });
    const alone = await host.loadReady(digest, { context_tokens: 1_024, slots: 1 });
    const waits: number[] = [];
    for (let turn = 0; turn < 5; turn++) {
      const signal = new AbortController().signal;
      const long = host.generateRequest(alone, { ...text("ROMEO:\n"), max_tokens: 1_000 });
      const running = host.client.generate(host.address, long, signal)[Symbol.asyncIterator]();
      await running.next();
      await running.next();
      const next = host.client
        .generate(host.address, host.generateRequest(alone, { max_tokens: 1 }), signal)
        [Symbol.asyncIterator]();
      const started = next.next();
      await eventually("the next one waits", async () => (await host.instance(alone))?.queued === 1);
      const asked = performance.now();
      expect((await host.client.cancel(host.address, long.generation_id)).cancelled).toBe(true);
      expect((await started).value).toMatchObject({ type: "started" });
      waits.push(performance.now() - asked);
      for (let event = await next.next(); !event.done; event = await next.next());
    }
    // The best of five, because other work on the machine may come between.
    expect(Math.min(...waits)).toBeLessThan(100);
    await host.client.unload(host.address, alone, { if_idle: false });
  });
});
