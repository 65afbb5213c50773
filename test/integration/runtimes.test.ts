/**
 * The same gateway on Bun, Node, Deno and workerd: real processes of each runtime on a Postgres server, with a
 * worker that streams what the test tells it to.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type BundleTarget, bundleGateway } from "../../gateway/main/bundle.ts";
import { openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { errorBody } from "../../schema/error.ts";
import { makeDeployRequest } from "../support/cluster-facts.ts";
import { eventually } from "../support/eventually.ts";
import { createDatabase, type PostgresServer, startPostgres } from "../support/postgres.ts";
import { type RunningProcess, repositoryRoot, startProcess } from "../support/processes.ts";
import { WorkerServer } from "../support/worker-server.ts";

const cluster_token = "cluster-token-of-this-test";
const admin_token = "admin-token-of-this-test";
const bin = path.join(repositoryRoot, "node_modules/.bin");
const node = Bun.which("node") ?? "node";

/** In the repository, so that Node finds the packages that are not bundled. */
let bundles: string;
let postgres: PostgresServer;

beforeAll(async () => {
  const cache = path.join(repositoryRoot, "test/.cache");
  mkdirSync(cache, { recursive: true });
  bundles = mkdtempSync(path.join(cache, "bundles-"));
  postgres = await startPostgres();
}, 60_000);
afterAll(async () => {
  await postgres.stop();
  rmSync(bundles, { recursive: true });
});

async function bundled(target: BundleTarget): Promise<string> {
  const [entry] = await bundleGateway(target, path.join(bundles, target));
  if (entry === undefined) throw new Error("nothing was bundled");
  return entry;
}

const runtimes = [
  { name: "Bun", command: [process.execPath], script: async () => "gateway/main/bun.ts" },
  {
    name: "Deno",
    command: [path.join(bin, "deno"), "run", "-A"],
    script: async () => "gateway/main/deno.ts",
  },
  { name: "Node", command: [node], script: () => bundled("node") },
  {
    name: "workerd",
    command: [node, path.join(repositoryRoot, "test/support/workerd.mjs")],
    script: () => bundled("cloudflare"),
  },
];

for (const runtime of runtimes) {
  describe(`the gateway on ${runtime.name}`, () => {
    const deployment = makeDeployRequest();
    let data_dir: string;
    let database: Awaited<ReturnType<typeof createDatabase>>;
    let gateway: RunningProcess;
    let worker: WorkerServer;

    beforeAll(async () => {
      data_dir = mkdtempSync(path.join(tmpdir(), "sllm-runtime-"));
      database = await createDatabase(postgres);
      gateway = await startProcess({
        command: runtime.command,
        script: await runtime.script(),
        variables: {
          SLLM_DATA_DIR: data_dir,
          SLLM_CLUSTER_TOKEN: cluster_token,
          SLLM_GATEWAY_ADMIN_TOKEN: admin_token,
          SLLM_GATEWAY_PORT: "0",
          SLLM_GATEWAY_DATABASE_URL: database.url,
        },
      });
      const deployed = await call("POST", "/admin/v1/models", deployment, admin_token);
      expect(await deployed.text()).toContain(deployment.id);
      const checkpoint = deployment.manifest.digest;
      worker = await WorkerServer.start({ gateway_url: gateway.url, cluster_token, checkpoint });
    }, 60_000);
    afterAll(async () => {
      await worker?.stop();
      await gateway?.stop();
      await database?.drop();
      rmSync(data_dir, { recursive: true });
    }, 30_000);

    const call = (method: string, where: string, body?: unknown, token?: string, signal?: AbortSignal) =>
      fetch(`${gateway.url}${where}`, {
        method,
        headers: {
          "content-type": "application/json",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
      });
    const chat = (signal?: AbortSignal) => {
      const messages = [{ role: "user", content: "Hi" }];
      return call(
        "POST",
        "/v1/chat/completions",
        { model: deployment.id, messages, stream: true },
        undefined,
        signal,
      );
    };

    test("lives and is ready", async () => {
      expect(await (await call("GET", "/livez")).json()).toMatchObject({ status: "ok" });
      expect((await call("GET", "/readyz")).status).toBe(200);
    });

    test("answers an unknown route with the envelope", async () => {
      const response = await call("GET", "/v2/nothing");
      expect(response.status).toBe(404);
      expect(errorBody.parse(await response.json()).error.code).toBe("route_not_found");
    });

    test("hands tokens on as they come", async () => {
      worker.hold();
      const response = await chat();
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toContain("text/event-stream");
      const stream = new TextReader(response);
      await stream.until("Hello");
      expect(stream.text).not.toContain(" world");
      worker.release();
      await stream.until("[DONE]");
      expect(stream.text).toContain(" world");
    }, 20_000);

    test("cancels at the worker when the client leaves", async () => {
      worker.hold();
      const leaving = new AbortController();
      const stream = new TextReader(await chat(leaving.signal));
      await stream.until("Hello");
      leaving.abort();
      const generation = worker.generations.at(-1) ?? "";
      await eventually("the generation is cancelled", () => worker.cancelled.includes(generation), 2_000);
    }, 20_000);

    // The platform ends objects as it likes; there is no signal to wait for.
    if (runtime.name === "workerd") return;

    test("lets a stream end when it is told to stop, keeps its record and leaves with status 0", async () => {
      worker.hold();
      const stream = new TextReader(await chat());
      await stream.until("Hello");
      gateway.kill("SIGTERM");
      await eventually("it is not ready any more", async () => {
        const ready = await call("GET", "/readyz").catch(() => null);
        return ready?.status !== 200;
      });
      worker.release();
      await stream.until("[DONE]");
      expect(await gateway.exited).toBe(0);
      const opened = openDatabase(database.url, { max: 1 });
      const record = await createStateStore(opened, systemClock).getGeneration(
        worker.generations.at(-1) ?? "",
      );
      await opened.close(1_000);
      expect(record).toMatchObject({ state: "finished", completion_tokens: 2, finish_reason: "stop" });
    }, 20_000);
  });
}

test("the bundle for workerd needs nothing but what its compatibility layer has", async () => {
  const text = readFileSync(await bundled("cloudflare"), "utf8");
  const modules = new Set(
    [...text.matchAll(/(?:from|import|import\()\s*"((?:node|cloudflare|bun):[^"]+)"/g)].map((m) => m[1]),
  );
  expect([...modules].toSorted()).toEqual([
    "cloudflare:sockets",
    "node:buffer",
    "node:events",
    "node:stream",
  ]);
});

/** Reads a body as text, as far as a test wants to. */
class TextReader {
  text = "";
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();

  constructor(response: Response) {
    if (response.body === null) throw new Error("the response has no body");
    this.#reader = response.body.getReader();
  }

  async until(part: string): Promise<void> {
    while (!this.text.includes(part)) {
      const { done, value } = await this.#reader.read();
      if (done) throw new Error(`the stream ended without '${part}': ${this.text}`);
      this.text += this.#decoder.decode(value, { stream: true });
    }
  }
}
