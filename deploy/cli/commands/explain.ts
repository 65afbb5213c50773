/** `sllm explain load`: what the last loads spent their time on, stage by stage. `sllm explain <id>`: one request. */
import type { AdminLoad } from "../../../schema/api/admin.ts";
import type { LoadsQuery } from "../../../schema/cluster/loads.ts";
import { generationId, instanceId, modelId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus, UsageError } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine, printNote } from "../terminal/output.ts";
import { formatBytes, formatTable } from "../terminal/table.ts";
import { formatRequest } from "./explain-request.ts";

/** Characters that the whole time of a load takes in the chart. */
const chartChars = 40;

export const explain: Command = {
  name: "explain",
  summary: "Show why a request ran where it did, or what the last loads of models spent their time on",
  args: {
    what: { type: "positional", description: "What to explain: load, or a request by its id" },
    target: { type: "positional", required: false, description: "A model or an instance; any if left out" },
    last: { type: "boolean", description: "The last load alone, as without any flag" },
    count: { type: "string", valueHint: "n", description: "So many of the last loads (1)" },
    json: { type: "boolean", description: "Print a JSON array" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [
    ["sllm explain load llama", "the last load of a model"],
    [
      "sllm explain 0123456789abcdef0123456789abcdef",
      "a request, by the hexadecimal part of its answer's id",
    ],
    ["sllm explain load --count 10 --json", "the last ten of all, for a program"],
  ],
  async run(args) {
    const what = args.required("what");
    const request = requestIdOf(what);
    if (what !== "load" && request === null) {
      throw new UsageError(`'${what}' cannot be explained: only 'load' and ids of requests can`);
    }
    const count = args.count("count", 1, limits.kept_loads) ?? 1;
    if (args.isOn("last") && count > 1) throw new UsageError("--last and --count exclude each other");
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), settings));
    if (request !== null) {
      const explained = await gateway.getRequest(request);
      printLine(args.isOn("json") ? JSON.stringify(explained) : formatRequest(explained));
      return exitStatus.ok;
    }
    const target = args.text("target");
    const { data, silent } = await gateway.listLoads({ ...queryOf(target), limit: count });
    if (silent.length > 0) printNote(`Without the loads of ${silent.join(", ")}: no answer from there.`);
    if (args.isOn("json")) printLine(JSON.stringify(data));
    else if (data.length > 0) printLine(data.map(formatLoad).join("\n\n"));
    else {
      throw new CommandFailure(`no worker remembers a load${target === undefined ? "" : ` of ${target}`}`, {
        advice: "A model is loaded when a request for it finds no running instance.",
      });
    }
    return exitStatus.ok;
  },
};

/** Answers carry the id with a word in front, as `chatcmpl-<id>`. */
function requestIdOf(text: string): string | null {
  const bare = text.slice(text.lastIndexOf("-") + 1);
  return generationId.safeParse(bare).success ? bare : null;
}

/** An instance's id cannot be mistaken for the name of a model in practice: `i-` and 16 hexadecimal digits. */
function queryOf(target: string | undefined): Partial<LoadsQuery> {
  if (target === undefined) return {};
  if (instanceId.safeParse(target).success) return { instance_id: target };
  if (!modelId.safeParse(target).success) throw new UsageError(`'${target}' names no model and no instance`);
  return { model_id: target };
}

/** One load: a line that sums up, its stages as a chart over time, and what the time was spent on. */
export function formatLoad(load: AdminLoad): string {
  return [
    `${load.model_id}: ${outcomeOf(load)}, ${sourceOf(load)}`,
    `${load.instance_id} on ${load.worker_id}, ${load.started_at}`,
    "",
    formatTable(
      [
        { title: "STAGE" },
        { title: "FROM", align: "right" },
        { title: "MS", align: "right" },
        {
          title: `0 ${"-".repeat(chartChars - formatMs(load.total_ms).length - 6)} ${formatMs(load.total_ms)} ms`,
        },
        { title: "AFTER" },
      ],
      load.stages.map(({ stage, start_ms, end_ms, after }) => [
        stage,
        formatMs(start_ms),
        formatMs(end_ms - start_ms),
        bar(start_ms, end_ms, load.total_ms),
        after.join(", "),
      ]),
    ),
    "",
    ...readLine(load),
    `critical path: ${load.critical_path.map(({ stage, ms }) => `${stage} ${formatMs(ms)}`).join(" > ") || "-"}`,
  ].join("\n");
}

function outcomeOf({ outcome, total_ms, error }: AdminLoad): string {
  const after = `after ${formatMs(total_ms)} ms`;
  return outcome === "ready" ? `ready ${after}` : `${outcome} ${after} (${error?.code}: ${error?.message})`;
}

function sourceOf({ source, bytes }: AdminLoad): string {
  if (source === null) return "no byte was read";
  if (source === "host") return `${formatBytes(bytes.weights)} were in host memory`;
  if (source === "shared") return `${formatBytes(bytes.weights)} came with another load`;
  const modes = [
    [bytes.direct, "past the page cache"],
    [bytes.cached, "that were in the page cache"],
    [bytes.buffered, "through the page cache"],
  ] as const;
  const read = modes.filter(([count]) => count > 0).map(([count, how]) => `${formatBytes(count)} ${how}`);
  return `from disk ${read.join(" and ") || "nothing"}`;
}

/** The read in its own words, when there was one. */
function readLine({ read }: AdminLoad): string[] {
  if (read === null) return [];
  const { first_verified_ms, digest_ms, fault_ms, memory_wait_ms, retries, rereads } = read;
  return [
    `read: first chunk good after ${formatMs(first_verified_ms)} ms; over all threads digests ${formatMs(digest_ms)}, ` +
      `page faults ${formatMs(fault_ms)}, waiting for memory ${formatMs(memory_wait_ms)} ms; ` +
      `${retries} reads tried again, ${rereads} chunks read again`,
  ];
}

/** At least one mark, so that no stage is invisible. */
function bar(start_ms: number, end_ms: number, total_ms: number): string {
  const scale = chartChars / Math.max(total_ms, 1e-9);
  const from = Math.min(chartChars - 1, Math.floor(start_ms * scale));
  const to = Math.min(chartChars, Math.max(from + 1, Math.round(end_ms * scale)));
  return `${" ".repeat(from)}${"=".repeat(to - from)}`;
}

function formatMs(ms: number): string {
  return ms.toFixed(1);
}
