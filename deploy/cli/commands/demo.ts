/** `npm run demo`: one streaming request to a cold model, and where the time until its first token went. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AdminGeneration, Timeline } from "../../../schema/api/admin.ts";
import { config } from "../../../schema/config.ts";
import type { Command } from "../command.ts";
import { formatTimeline } from "../demo/timeline.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { type ChatEvent, streamChat } from "../gateway/chat-stream.ts";
import { GatewayClient, type GatewayTarget } from "../gateway/gateway-client.ts";
import { root, surroundingsOfProcess } from "../settings/surroundings.ts";
import { sampleModel } from "../system/sample-model.ts";
import { startSystem } from "../system/start-system.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine, printNote } from "../terminal/output.ts";

const question = { role: "user", content: "To be, or not to be" } as const;
const answerTokens = 64;

interface DemoResult {
  readonly cold_start: boolean;
  /** From sending the request to the first piece of text at the client. */
  readonly ttft_ms: number;
  readonly tokens: number;
  readonly text: string;
  readonly timeline_ms: Timeline;
}

export const demo: Command = {
  name: "demo",
  summary: "Start everything in a temporary folder, send one request, show the timeline",
  isHidden: true,
  args: { json: { type: "boolean", description: "Print only one JSON object to standard output" } },
  examples: [
    ["npm run demo", "for people"],
    ["npm run demo -- --json", "the last line is a JSON object"],
  ],
  async run(args) {
    const isJson = args.isOn("json");
    const data_dir = mkdtempSync(join(tmpdir(), "sllm-demo-"));
    const stop = listenForStop(() => process.exit(exitStatus.interrupted));
    try {
      printNote("Starting gateway and worker in a temporary folder ...");
      const system = await startSystem({
        config: config.parse({ data_dir, gateway: { port: 0 } }),
        roles: { gateway: true, worker: true },
        hasOwnGateways: false,
        offerSample: true,
        root,
        variables: surroundingsOfProcess().variables,
        verbosity: "notable",
        note: printNote,
        progress: process.stderr,
        signal: stop.signal,
      });
      try {
        if (system.gateway === null) throw new Error("the gateway was not started");
        const write = (text: string) => (isJson ? process.stderr : process.stdout).write(text);
        const result = await ask(system.gateway, write, stop.signal);
        if (isJson) printLine(JSON.stringify(result));
        else printLine(summary(result));
      } finally {
        await system.stop();
      }
      return exitStatus.ok;
    } catch (error) {
      if (stop.signal.aborted) return exitStatus.interrupted;
      throw error;
    } finally {
      stop.stopListening();
      rmSync(data_dir, { recursive: true, force: true });
    }
  },
};

async function ask(
  target: GatewayTarget,
  write: (text: string) => void,
  signal: AbortSignal,
): Promise<DemoResult> {
  write(`\n> ${question.content}\n`);
  const started_ms = performance.now();
  let ttft_ms: number | null = null;
  let text = "";
  let end: Extract<ChatEvent, { type: "end" }> | null = null;
  const options = { model: sampleModel.id, messages: [question], max_tokens: answerTokens };
  for await (const event of streamChat(target, options, signal)) {
    if (event.type === "end") end = event;
    if (event.type !== "text") continue;
    ttft_ms ??= performance.now() - started_ms;
    text += event.text;
    write(event.text);
  }
  write("\n");
  if (end?.generation_id == null || ttft_ms === null) {
    throw new CommandFailure("the answer came without text or without its id");
  }
  const { cold_start, timeline_ms } = await readRecord(new GatewayClient(target), end.generation_id, signal);
  return { cold_start, ttft_ms, tokens: end.completion_tokens ?? 0, text, timeline_ms };
}

/** The record is written beside the stream: its end may reach the client some milliseconds earlier. */
const recordPolls = 100;
const recordPollMs = 50;

async function readRecord(
  gateway: GatewayClient,
  generation_id: string,
  signal: AbortSignal,
): Promise<AdminGeneration & { timeline_ms: Timeline }> {
  for (let poll = 0; poll < recordPolls; poll++) {
    const record = await gateway.getGeneration(generation_id);
    if (record.timeline_ms !== null) return { ...record, timeline_ms: record.timeline_ms };
    signal.throwIfAborted();
    await Bun.sleep(recordPollMs);
  }
  throw new CommandFailure(`generation ${generation_id} has no timeline`);
}

function summary(result: DemoResult): string {
  const start = result.cold_start ? "Cold start" : "Warm start";
  return [
    "",
    `${start}: ${result.ttft_ms.toFixed(0)} ms to the first token, ${result.tokens} tokens. Where the time went:`,
    "",
    formatTimeline(result.timeline_ms),
    "",
    "Stages overlap: the weights are read while the model is built.",
  ].join("\n");
}
