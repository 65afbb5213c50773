/**
 * What the gateway adds to the first token of a warm request: the same prompt through the gateway and straight to the
 * worker, open loop at a fixed rate, in turns of a few seconds. The echo engine answers at once, so that the differences
 * are the gateway's and not a model's.
 */

import { clusterToken, TestCluster } from "../../support/cluster.ts";
import { openNativeLibrary } from "../../support/native.ts";
import { writeTinyCheckpoint } from "../../support/tiny-checkpoint.ts";
import { quantile } from "../statistics.ts";

export interface Overhead {
  readonly requests: number;
  readonly gateway_ms: { readonly p50: number; readonly p99: number };
  readonly direct_ms: { readonly p50: number; readonly p99: number };
  /** Differences of the quantiles. */
  readonly overhead_ms: { readonly p50: number; readonly p99: number };
}

export interface OverheadOptions {
  readonly per_second: number;
  readonly turns: number;
  readonly turn_ms: number;
}

const model = "echo";

/** Starts a cluster of its own and stops it. */
export async function measureOverhead(options: OverheadOptions): Promise<Overhead> {
  const cluster = await TestCluster.start({
    worker: { SLLM_ENGINE_KIND: "echo", SLLM_ECHO_TOKEN_US: "0" },
  });
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
    const direct = () =>
      firstTokenMs(`${worker.url}/v1/generations`, headers, directBody(instance.instance_id), '"tokens"');
    return await inTurns(viaGateway, direct, options);
  } finally {
    await cluster.close();
  }
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

async function inTurns(
  viaGateway: () => Promise<number>,
  direct: () => Promise<number>,
  options: OverheadOptions,
): Promise<Overhead> {
  for (const request of [viaGateway, direct]) await atRate(request, options.per_second, 1_000);
  const gateway: number[] = [];
  const straight: number[] = [];
  for (let turn = 0; turn < options.turns; turn++) {
    gateway.push(...(await atRate(viaGateway, options.per_second, options.turn_ms)));
    straight.push(...(await atRate(direct, options.per_second, options.turn_ms)));
  }
  const gateway_ms = { p50: quantile(gateway, 0.5), p99: quantile(gateway, 0.99) };
  const direct_ms = { p50: quantile(straight, 0.5), p99: quantile(straight, 0.99) };
  return {
    requests: gateway.length + straight.length,
    ...{ gateway_ms, direct_ms },
    overhead_ms: { p50: gateway_ms.p50 - direct_ms.p50, p99: gateway_ms.p99 - direct_ms.p99 },
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
