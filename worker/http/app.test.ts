import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Hono } from "hono";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { errorBody } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { DiskTier } from "../checkpoints/disk-tier.ts";
import { HostTier } from "../checkpoints/host-tier.ts";
import { Devices } from "../instances/devices.ts";
import { Supervisor } from "../instances/supervisor.ts";
import { LinkQueue } from "../links/link-queue.ts";
import { generationParts } from "../moves/generation-parts.ts";
import { createWorkerApp } from "./app.ts";

const cluster_token = "a-token-for-the-cluster";
const log = { info: () => {}, warn: () => {}, error: () => {} };
const unused = () => {
  throw new Error("no checkpoint is ever loaded here");
};

let folder: string;
let app: Hono;
let ready: boolean;
let someTraces: LoadTrace[];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-app-"));
  ready = true;
  someTraces = [];
  const clock = new ManualClock();
  const store = { load: unused, status: unused, release: unused, arena: unused };
  const supervisor = new Supervisor({
    disk: new DiskTier({ directory: folder, log }),
    host: new HostTier({
      store,
      clock,
      link: new LinkQueue({ link: "disk", parallel: 1, clock }),
      fileVersion: () => "",
      cacheBytes: () => 0,
      process_id: 1,
    }),
    devices: new Devices([{ device_id: "cpu", kind: "cpu", memory_bytes: 1, engine_name: null }]),
    useCheckpoint: async () => () => {},
    launch: unused,
    engine: "echo",
    threads: 1,
    prefill_tokens: 256,
    adapters: 2,
    engine_queue: 8,
    engine_stall_ms: 60_000,
    engine_headroom_bytes: 0,
    clock,
    log,
    onChange: () => {},
    onLoading: () => {},
    onLikely: () => {},
    onLoadEnded: () => {},
  });
  app = createWorkerApp({
    cluster_token,
    incarnation: "00000000000000aa",
    supervisor,
    ...generationParts({
      worker_id: "w-0000000000000001",
      cluster_token,
      findInstance: (id) => supervisor.get(id),
      fetch: (url, init) => fetch(url, init),
      clock,
    }),
    status: () => Promise.reject(new Error("a defect with a secret in it")),
    loads: ({ limit }) => someTraces.slice(0, limit),
    isReady: () => ready,
    onDrain: () => undefined,
    clock,
    log,
  });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const load = {
  protocol_version: 1,
  instance_id: "i-0000000000000001",
  model_id: "m",
  checkpoint: "0".repeat(64),
  device_id: "cpu",
  context_tokens: 64,
  slots: 1,
};

async function call(method: string, route: string, body?: string, headers: Record<string, string> = {}) {
  const response = await app.request(route, {
    method,
    headers: { authorization: `Bearer ${cluster_token}`, "content-type": "application/json", ...headers },
    ...(body === undefined ? {} : { body }),
  });
  return { status: response.status, json: await response.json() };
}

async function errorOf(answer: Promise<{ status: number; json: unknown }>) {
  const { status, json } = await answer;
  const { code, param, message } = errorBody.parse(json).error;
  return { status, code, param, message };
}

test("everything but /livez wants the cluster token, unknown paths too", async () => {
  expect((await app.request("/livez")).status).toBe(200);
  const wrong = { authorization: `Bearer ${cluster_token.slice(0, -1)}x` };
  for (const route of ["/readyz", "/v1/status", "/nowhere"]) {
    expect((await app.request(route)).status).toBe(401);
    expect(await errorOf(call("GET", route, undefined, wrong))).toMatchObject({ code: "invalid_api_key" });
  }
  expect((await app.request("/v1/instances", { method: "POST", body: "{}" })).status).toBe(401);
});

test("readiness follows the worker", async () => {
  expect((await call("GET", "/readyz")).status).toBe(200);
  ready = false;
  expect(await errorOf(call("GET", "/readyz"))).toMatchObject({ status: 503, code: "worker_unavailable" });
});

test("a call that is meant for another process of the worker is refused, one that names none is not", async () => {
  const meantFor = (incarnation: string) => ({ "x-sllm-incarnation": incarnation });
  expect((await call("GET", "/readyz", undefined, meantFor("00000000000000aa"))).status).toBe(200);
  const calls = [
    ["POST", "/v1/instances", JSON.stringify(load)],
    ["DELETE", "/v1/instances/i-0000000000000001", undefined],
    ["POST", "/v1/generations", "{}"],
  ] as const;
  for (const [method, route, body] of calls) {
    const refused = await errorOf(call(method, route, body, meantFor("00000000000000bb")));
    expect(refused).toMatchObject({ status: 409, code: "stale_epoch", param: "incarnation" });
  }
});

test("a wrong field is named", async () => {
  const body = JSON.stringify({ ...load, slots: 0 });
  expect(await errorOf(call("POST", "/v1/instances", body))).toMatchObject({
    status: 400,
    code: "invalid_request",
    param: "slots",
  });
});

test("what is not JSON is refused as such", async () => {
  expect(await errorOf(call("POST", "/v1/instances", "{"))).toMatchObject({ code: "invalid_request" });
  const plain = { "content-type": "text/plain" };
  expect(await errorOf(call("POST", "/v1/instances", JSON.stringify(load), plain))).toMatchObject({
    code: "unsupported_media_type",
  });
});

test("another protocol version is told before any other difference", async () => {
  const body = JSON.stringify({ protocol_version: 2, everything: "else is new" });
  expect(await errorOf(call("POST", "/v1/generations", body))).toMatchObject({
    status: 422,
    code: "protocol_mismatch",
  });
});

test("a body beyond the limit is refused", async () => {
  const body = JSON.stringify({
    ...load,
    model_id: "x".repeat(limits.worker_body_bytes),
  });
  expect(await errorOf(call("POST", "/v1/instances", body))).toMatchObject({
    status: 413,
    code: "payload_too_large",
  });
});

test("refusals of a load come as a status, not as a stream", async () => {
  expect(await errorOf(call("POST", "/v1/instances", JSON.stringify(load)))).toMatchObject({
    status: 503,
    code: "checkpoint_unavailable",
  });
});

test("instances and generations that are not here", async () => {
  expect(await errorOf(call("DELETE", "/v1/instances/i-0000000000000009"))).toMatchObject({
    code: "not_found",
  });
  expect(await errorOf(call("DELETE", "/v1/instances/nonsense"))).toMatchObject({ code: "invalid_request" });
  const id = "0".repeat(32);
  expect((await call("DELETE", `/v1/generations/${id}`)).json).toEqual({
    generation_id: id,
    cancelled: false,
  });
});

test("unknown routes and defects are envelopes; a defect's message stays inside", async () => {
  expect(await errorOf(call("GET", "/nowhere"))).toMatchObject({ status: 404, code: "route_not_found" });
  const defect = await errorOf(call("GET", "/v1/status"));
  expect(defect).toMatchObject({ status: 500, code: "internal" });
  expect(defect.message).not.toContain("secret");
});
