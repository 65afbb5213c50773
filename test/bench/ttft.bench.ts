/**
 * Time to first token over public HTTP, of the sample model and of a random-weight model of about 0.7 GB:
 *   cold_disk  no instance, no host copy: process start, disk read, model build, prefill
 *   cold_host  no instance, weights in host memory
 *   warm       instance with a free slot
 * In the same rounds, interleaved: the ceiling (the weights read once with O_DIRECT by dd) and the peer (a process of
 * libllama that loads the GGUF file in the normal way, file evicted from the page cache first or not).
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import path from "node:path";
import { makeModel } from "../models/make-model.ts";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { repositoryRoot } from "../support/processes.ts";
import { readSse } from "../support/sse-client.ts";
import { pairedRatio, type Summary, summary } from "./statistics.ts";

const json = process.argv.includes("--json");
const rounds = 5;
/** Compute threads of ours and of the peer. */
const threads = String(cpus().length);
const prompt = "ROMEO:\nBut soft, what light through yonder window breaks?";
const say = (text: string) => (json ? undefined : console.log(text));

interface Row {
  readonly model: string;
  readonly weights_bytes: number;
  readonly ttft_ms: Record<"cold_disk" | "cold_host" | "warm", Summary>;
  readonly disk_ceiling_ms: Summary;
  readonly plain_libllama_ms: Record<"evicted" | "cached", Summary>;
  readonly ratio: {
    /** Our cold start over the time the disk alone needs; 1 would be the ceiling. */
    readonly cold_disk_to_ceiling: number;
    readonly cold_disk_to_plain_evicted: number;
    readonly cold_host_to_plain_cached: number;
  };
}

/** Milliseconds from the request to the first event with text. */
async function ttftMs(cluster: TestCluster, model: string): Promise<number> {
  const started = performance.now();
  const body = { model, prompt, max_tokens: 4, temperature: 0, stream: true, ignore_eos: true };
  const response = await cluster.post("/v1/completions", body);
  if (response.status !== 200) throw new Error(await response.text());
  let first = Number.NaN;
  for await (const received of readSse(response)) {
    if (received.kind !== "event" || received.data === "[DONE]") continue;
    const event = JSON.parse(received.data);
    if (event.error) throw new Error(event.error.message);
    // A token whose bytes are not text yet still is the first token.
    if (Number.isNaN(first) && /:0\.\d+$/.test(received.id ?? "")) first = received.at_ms - started;
  }
  if (Number.isNaN(first)) throw new Error("no token came");
  return first;
}

async function goneFromWorker(cluster: TestCluster): Promise<void> {
  await eventually("all instances are gone", async () =>
    (await cluster.workerStatus()).instances.every((i) => i.pid === null),
  );
  await eventually("their rows have ended", async () =>
    (await cluster.adminInstances()).every((i) => i.state === "gone"),
  );
}

/**
 * Cold starts are measured from a worker at rest, whose reserve of engine processes is full: it is filled a second after
 * a load. Starts in quick succession find it empty and take the time of a process start longer.
 */
async function atRest(cluster: TestCluster): Promise<void> {
  await eventually("an engine process waits", async () => (await cluster.workerStatus()).standby_engines > 0);
}

function run(command: string, args: readonly string[], variables: Record<string, string> = {}): string {
  const result = spawnSync(command, args, { encoding: "utf8", env: { ...process.env, ...variables } });
  if (result.status !== 0) throw new Error(`${command} ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

/** Asks the kernel to drop the file's pages from its cache. */
function evict(file: string): void {
  run("sync", [file]);
  run("dd", [`if=${file}`, "iflag=nocache", "count=0", "status=none"]);
}

/** One O_DIRECT pass over the file: what the disk needs at least. */
function diskMs(file: string): number {
  const started = performance.now();
  run("dd", [`if=${file}`, "of=/dev/null", "bs=16M", "iflag=direct", "status=none"]);
  return performance.now() - started;
}

/**
 * Load and first token of plain libllama in a process of its own, with as many threads as our engines. Counted by that
 * process: its start is left out, which ours is not.
 */
function plainMs(gguf: string, evicted: boolean): number {
  if (evicted) evict(gguf);
  const program = path.join(repositoryRoot, "native/build/sllm_bench_plain");
  const out = run(program, [gguf, prompt, "1"], { SLLM_BENCH_THREADS: threads });
  const { first_token_ms } = JSON.parse(out) as { first_token_ms: number };
  return first_token_ms;
}

async function measure(name: string, gguf: string): Promise<Row> {
  const usual = { SLLM_WORKER_THREADS: threads, SLLM_WORKER_PREFAULT_BYTES: String(2 ** 31) };
  const cold = await TestCluster.start({ worker: { ...usual, SLLM_WORKER_HOST_CACHE_BYTES: "0" } });
  const hosted = await TestCluster.start({ worker: usual });
  try {
    await cold.deploy(name, gguf, { keep_alive_ms: 0, slots: 1, context_tokens: 256 });
    await hosted.deploy(name, gguf, { keep_alive_ms: 0, slots: 1, context_tokens: 256 });
    await hosted.deploy(`${name}-warm`, gguf, { slots: 1, context_tokens: 256 });
    const { manifest, directory } = await cold.convert(gguf);
    const weights = path.join(directory, "weights.bin");
    await ttftMs(hosted, name);
    await ttftMs(hosted, `${name}-warm`);

    const times = { disk: [], host: [], warm: [], ceiling: [], evicted: [], cached: [] } as Record<
      string,
      number[]
    >;
    const put = (key: string, value: number) => times[key]?.push(value);
    for (let round = 0; round < rounds; round++) {
      await atRest(cold);
      evict(weights);
      put("disk", await ttftMs(cold, name));
      await goneFromWorker(cold);
      evict(weights);
      put("ceiling", diskMs(weights));
      put("evicted", plainMs(gguf, true));
      put("cached", plainMs(gguf, false));
      await atRest(hosted);
      put("host", await ttftMs(hosted, name));
      put("warm", await ttftMs(hosted, `${name}-warm`));
      await eventually("the idle instance is gone", async () =>
        (await hosted.workerStatus()).instances.every((i) => i.model_id !== name || i.pid === null),
      );
    }
    const of = (key: string) => times[key] ?? [];
    return {
      model: name,
      weights_bytes: manifest.weights.bytes,
      ttft_ms: { cold_disk: summary(of("disk")), cold_host: summary(of("host")), warm: summary(of("warm")) },
      disk_ceiling_ms: summary(of("ceiling")),
      plain_libllama_ms: { evicted: summary(of("evicted")), cached: summary(of("cached")) },
      ratio: {
        cold_disk_to_ceiling: pairedRatio(of("disk"), of("ceiling")),
        cold_disk_to_plain_evicted: pairedRatio(of("disk"), of("evicted")),
        cold_host_to_plain_cached: pairedRatio(of("host"), of("cached")),
      },
    };
  } finally {
    await cold.close();
    await hosted.close();
  }
}

function print(row: Row): void {
  const ms = (value: Summary) =>
    `${value.median.toFixed(1).padStart(9)} ms  (${value.min.toFixed(1)} .. ${value.max.toFixed(1)}, ${value.runs} runs)`;
  say(`\n${row.model}: ${(row.weights_bytes / 1e6).toFixed(1)} MB of weights`);
  say(`  first token, cold from disk         ${ms(row.ttft_ms.cold_disk)}`);
  say(`  first token, cold from host memory  ${ms(row.ttft_ms.cold_host)}`);
  say(`  first token, warm                   ${ms(row.ttft_ms.warm)}`);
  say(`  ceiling: the disk alone             ${ms(row.disk_ceiling_ms)}`);
  say(`  plain libllama, file evicted        ${ms(row.plain_libllama_ms.evicted)}`);
  say(`  plain libllama, file cached         ${ms(row.plain_libllama_ms.cached)}`);
  for (const [name, value] of Object.entries(row.ratio)) say(`  ratio ${name}: ${value.toFixed(2)}`);
}

const cache = path.join(repositoryRoot, "test/.cache");
mkdirSync(cache, { recursive: true });
const large = path.join(cache, "random-llama-0.7GB-f16.gguf");
if (!existsSync(large)) {
  say("writing the random model ...");
  await makeModel({ architecture: "llama", size_bytes: 0.7e9, type: "f16", out: large, seed: 1 });
}
say(
  `${statSync(large).size / 1e6} MB random model, ${cpus().length} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB`,
);
const rows: Row[] = [];
for (const [name, gguf] of [
  ["tiny-shakespeare", sampleModelPath],
  ["random-0.7GB", large],
] as const) {
  const row = await measure(name, gguf);
  print(row);
  rows.push(row);
}
if (json) {
  const machine = {
    cores: cpus().length,
    processor: cpus()[0]?.model.trim() ?? "",
    memory_bytes: totalmem(),
  };
  console.log(JSON.stringify({ benchmark: "ttft", machine, rounds, rows }));
}
