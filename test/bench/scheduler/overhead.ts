/**
 * What the gateway adds to the first token of a warm request: the same prompt through the gateway, straight to the
 * worker, and through a program that only passes bytes on, open loop at a fixed rate, in turns of a few seconds. The
 * echo engine answers at once, so that the differences are the gateway's and not a model's.
 */
import path from "node:path";
import { clusterToken, TestCluster } from "../../support/cluster.ts";
import { openNativeLibrary } from "../../support/native.ts";
import { withDatabase } from "../../support/postgres.ts";
import { writeTinyCheckpoint } from "../../support/tiny-checkpoint.ts";
import { quantile } from "../statistics.ts";

interface Quantiles {
  readonly p50: number;
  readonly p99: number;
}

export interface Overhead {
  readonly requests: number;
  readonly gateway_ms: Quantiles;
  readonly direct_ms: Quantiles;
  readonly bare_hop_ms: Quantiles;
  /** Differences of the quantiles to those of the direct way. */
  readonly overhead_ms: Quantiles;
  readonly bare_overhead_ms: Quantiles;
}

export interface OverheadOptions {
  /** Where the gateway keeps its state: in its own process, as one machine does, or on a server, as fleets do. */
  readonly database: "embedded" | "postgres";
  readonly per_second: number;
  readonly turns: number;
  readonly turn_ms: number;
}

const model = "echo";

/** Starts a cluster of its own and stops it. */
export async function measureOverhead(options: OverheadOptions): Promise<Overhead> {
  if (options.database === "embedded") return await measureWith({}, options);
  return await withDatabase((url) => measureWith({ SLLM_GATEWAY_DATABASE_URL: url }, options));
}

async function measureWith(
  gateway: Readonly<Record<string, string>>,
  options: OverheadOptions,
): Promise<Overhead> {
  const worker = { SLLM_ENGINE_KIND: "echo", SLLM_ECHO_TOKEN_US: "0" };
  const cluster = await TestCluster.start({ gateway, worker });
  let hop: BareHop | null = null;
  try {
    const library = await openNativeLibrary();
    const xxh3 = (chunk: Uint8Array) => library.digestXxh3(chunk);
    const checkpoint = writeTinyCheckpoint(cluster.storeFolder, { xxh3 });
    await cluster.deployCheckpoint(model, checkpoint, { slots: 32 });
    const viaGateway = () => firstTokenMs(`${cluster.url}/v1/completions`, {}, gatewayBody, '"text":');
    await viaGateway();
    const [instance] = await cluster.adminInstances();
    const [worker] = await cluster.adminWorkers();
    if (instance === undefined || worker === undefined) throw new Error("no instance is running");
    const headers = { authorization: `Bearer ${clusterToken}` };
    const atWorker = (url: string) => () =>
      firstTokenMs(`${url}/v1/generations`, headers, directBody(instance.instance_id), '"tokens"');
    hop = await startBareHop(worker.url);
    const ways = { gateway: viaGateway, direct: atWorker(worker.url), bare: atWorker(hop.url) };
    return await inTurns(ways, options);
  } finally {
    await hop?.stop();
    await cluster.close();
  }
}

interface BareHop {
  readonly url: string;
  stop(): Promise<void>;
}

async function startBareHop(target: string): Promise<BareHop> {
  const script = path.join(import.meta.dir, "bare-hop.ts");
  const child = Bun.spawn([process.execPath, script, target], { stdin: "pipe", stdout: "pipe" });
  for await (const line of child.stdout.pipeThrough(new TextDecoderStream())) {
    const stop = async () => {
      await child.stdin.end();
      await child.exited;
    };
    return { url: line.trim(), stop };
  }
  throw new Error("the program that passes requests on did not start");
}

const prompt = "to be or not ";
const gatewayBody = { model, prompt, max_tokens: 4, temperature: 0, stream: true };

function directBody(instance_id: string): object {
  const generation_id = crypto.randomUUID().replaceAll("-", "");
  return {
    ...{ protocol_version: 1, generation_id, epoch: 1, instance_id, max_tokens: 4, ignore_eos: false },
    prompt: { kind: "text", text: prompt },
    sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "0" },
    stop: [],
  };
}

type Way = "gateway" | "direct" | "bare";

async function inTurns(
  ways: Readonly<Record<Way, () => Promise<number>>>,
  options: OverheadOptions,
): Promise<Overhead> {
  const found: Record<Way, number[]> = { gateway: [], direct: [], bare: [] };
  const order: readonly Way[] = ["gateway", "direct", "bare"];
  for (const way of order) await atRate(ways[way], options.per_second, 1_000);
  for (let turn = 0; turn < options.turns; turn++) {
    for (const way of order)
      found[way].push(...(await atRate(ways[way], options.per_second, options.turn_ms)));
  }
  const quantiles = (way: Way) => ({ p50: quantile(found[way], 0.5), p99: quantile(found[way], 0.99) });
  const [gateway_ms, direct_ms, bare_hop_ms] = [quantiles("gateway"), quantiles("direct"), quantiles("bare")];
  const above = ({ p50, p99 }: Quantiles) => ({ p50: p50 - direct_ms.p50, p99: p99 - direct_ms.p99 });
  return {
    requests: order.reduce((sum, way) => sum + found[way].length, 0),
    ...{ gateway_ms, direct_ms, bare_hop_ms },
    overhead_ms: above(gateway_ms),
    bare_overhead_ms: above(bare_hop_ms),
  };
}

/** Open loop: a request goes out when it is due, whatever became of those before. */
async function atRate(request: () => Promise<number>, per_second: number, for_ms: number): Promise<number[]> {
  const count = Math.round((per_second * for_ms) / 1_000);
  const begin = performance.now();
  const answers: Promise<number>[] = [];
  for (let i = 0; i < count; i++) {
    const wait_ms = begin + (i * 1_000) / per_second - performance.now();
    if (wait_ms > 0) await Bun.sleep(wait_ms);
    answers.push(request());
  }
  return await Promise.all(answers);
}

/** From the request until the mark of a first token is in what was read; then reads to the end. */
async function firstTokenMs(
  url: string,
  headers: Readonly<Record<string, string>>,
  body: object,
  mark: string,
): Promise<number> {
  const begin = performance.now();
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  if (response.status !== 200 || response.body === null) {
    throw new Error(`${url}: ${response.status} ${await response.text()}`);
  }
  let first_ms: number | null = null;
  let text = "";
  for await (const bytes of response.body.pipeThrough(new TextDecoderStream())) {
    text += bytes;
    if (first_ms === null && text.includes(mark)) first_ms = performance.now() - begin;
  }
  if (first_ms === null) throw new Error(`${url}: no token came: ${text}`);
  return first_ms;
}
