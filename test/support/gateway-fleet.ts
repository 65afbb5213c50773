/** Three gateway processes on one Postgres behind a relay, 20 workers, and clients that check every token they get. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { leaderLease } from "../../gateway/control/leadership.ts";
import type { StateStore } from "../../gateway/ports.ts";
import { type Database, openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { adminWorkerList } from "../../schema/api/admin.ts";
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { eventually } from "./eventually.ts";
import { FleetWorker, type FleetWorkerOptions } from "./fleet-worker.ts";
import { createDatabase, type PostgresServer, startPostgres } from "./postgres.ts";
import { type RunningProcess, startProcess } from "./processes.ts";
import { Relay } from "./relay.ts";
import { tokenText } from "./scripted-engine.ts";
import { readSse } from "./sse-client.ts";
import { writeTinyCheckpoint } from "./tiny-checkpoint.ts";

const cluster_token = "cluster-token-of-the-fleet";
const settings = { slots: 4, context_tokens: 64 };
/** Models that fit a worker at once. */
const modelsPerWorker = 2;

export interface FleetSize {
  readonly gateways: number;
  readonly workers: number;
  readonly models: number;
  readonly token_ms: number;
}

export class GatewayFleet {
  readonly gateways: RunningProcess[] = [];
  readonly workers: FleetWorker[] = [];
  readonly models: string[] = [];
  readonly relay: Relay;
  /** Looks at the database past the relay. */
  readonly database: Database;
  readonly store: StateStore;
  readonly #ids = new Map<RunningProcess, string>();
  readonly #folder = mkdtempSync(path.join(tmpdir(), "sllm-fleet-"));
  readonly #size: FleetSize;
  readonly #server: PostgresServer;
  readonly #drop: () => Promise<void>;
  readonly #manifests: readonly Manifest[];

  private constructor(
    size: FleetSize,
    server: PostgresServer,
    made: { url: string; drop: () => Promise<void> },
  ) {
    this.#size = size;
    this.#server = server;
    this.#drop = made.drop;
    this.relay = new Relay(made.url);
    this.database = openDatabase(made.url, { max: 4 });
    this.store = createStateStore(this.database, systemClock);
    this.#manifests = Array.from(
      { length: size.models },
      (_, i) => writeTinyCheckpoint(this.#folder, { fill: i + 1 }).manifest,
    );
  }

  /** Gateways (which make the tables at once), workers and models, all ready. */
  static async start(size: FleetSize): Promise<GatewayFleet> {
    const server = await startPostgres();
    const fleet = new GatewayFleet(size, server, await createDatabase(server));
    await fleet.relay.open();
    const starts = Array.from({ length: size.gateways }, () => fleet.startGateway("0"));
    fleet.gateways.push(...(await Promise.all(starts)));
    for (let i = 0; i < size.workers; i++) fleet.workers.push(fleet.startWorker(i));
    await Promise.all(fleet.#manifests.map((manifest, i) => fleet.#deploy(`model-${i}`, manifest, i)));
    await eventually("all workers are ready", async () => {
      const ready = (await fleet.store.snapshot()).workers.filter((row) => row.state === "ready");
      return ready.length === size.workers;
    });
    return fleet;
  }

  async stop(): Promise<void> {
    await Promise.all(this.gateways.map((gateway) => gateway.stop()));
    await Promise.all(this.workers.map((worker) => worker.kill()));
    this.relay.close();
    await this.database.close(1_000);
    await this.#drop();
    await this.#server.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async startGateway(port: string): Promise<RunningProcess> {
    const gateway = await startProcess({
      script: "gateway/main/bun.ts",
      variables: {
        SLLM_CLUSTER_TOKEN: cluster_token,
        SLLM_DATA_DIR: this.#folder,
        SLLM_GATEWAY_DATABASE_URL: this.relay.url,
        SLLM_GATEWAY_PORT: port,
        SLLM_GATEWAY_PARK_MS: "0",
      },
    });
    const id = await eventually("it says its id", () => /"gateway_id":"([^"]+)"/.exec(gateway.log())?.[1]);
    this.#ids.set(gateway, id);
    return gateway;
  }

  /** Ends a gateway without a word. */
  async killGateway(index: number): Promise<void> {
    const gateway = this.gateways[index];
    gateway?.kill("SIGKILL");
    await gateway?.exited;
  }

  /** Where it was before, for workers know it by that. */
  async restartGateway(index: number): Promise<void> {
    this.gateways[index] = await this.startGateway(new URL(this.urlOf(index)).port);
  }

  startWorker(index: number, worker_id?: string): FleetWorker {
    const [manifest] = this.#manifests;
    if (manifest === undefined) throw new Error("a fleet has models");
    const { model, weights } = manifest;
    const urls = this.gateways.map(({ url }) => url);
    const first = index % urls.length;
    const options: FleetWorkerOptions = {
      gateways: [...urls.slice(first), ...urls.slice(0, first)],
      cluster_token,
      store: this.#folder,
      memory_bytes: modelsPerWorker * instanceMemoryBytes(model, weights.bytes, settings),
      token_ms: this.#size.token_ms,
    };
    return FleetWorker.start(worker_id === undefined ? options : { ...options, worker_id });
  }

  urlOf(index: number): string {
    const gateway = this.gateways[index % this.gateways.length];
    if (gateway === undefined) throw new Error("a fleet has gateways");
    return gateway.url;
  }

  /** Index of the gateway that leads; -1 while none of those that run does. */
  async leader(): Promise<number> {
    const lease = (await this.store.changes(null)).leases.find((row) => row.name === leaderLease);
    return this.gateways.findIndex(
      (gateway) => lease !== undefined && this.#ids.get(gateway) === lease.holder,
    );
  }

  /** State of a worker as a gateway sees it. */
  async stateOf({ worker_id }: FleetWorker, gateway: number): Promise<string | undefined> {
    const response = await fetch(`${this.urlOf(gateway)}/admin/v1/workers`);
    const { data } = adminWorkerList.parse(await response.json());
    return data.find((worker) => worker.worker_id === worker_id)?.state;
  }

  async #deploy(id: string, manifest: Manifest, gateway: number): Promise<void> {
    const response = await fetch(`${this.urlOf(gateway)}/admin/v1/models`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ id, manifest, settings, replace: false }),
    });
    if (!response.ok) throw new Error(`deploy: ${response.status} ${await response.text()}`);
    this.models.push(id);
  }

  /**
   * Asks for so many tokens as a stream; resolves with their number when every one came, in order and once. `onToken` is
   * told each. Throws what the client would see instead.
   */
  async ask(model: string, tokens: number, gateway: number, onToken = () => {}): Promise<number> {
    const response = await fetch(`${this.urlOf(gateway)}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model, prompt: "Hi", stream: true, max_tokens: tokens }),
    });
    if (!response.ok) throw new Error(`${model}: ${response.status} ${await response.text()}`);
    let text = "";
    for await (const event of readSse(response)) {
      if (event.kind === "comment" || event.data === "[DONE]") continue;
      const chunk = JSON.parse(event.data);
      if (chunk.error !== undefined) throw new Error(`${model}: ${JSON.stringify(chunk.error)}`);
      const piece: string = chunk.choices?.[0]?.text ?? "";
      text += piece;
      if (piece !== "") onToken();
    }
    const whole = Array.from({ length: tokens }, (_, i) => tokenText(i)).join("");
    if (text !== whole) throw new Error(`${model}: got '${text}' instead of '${whole}'`);
    return tokens;
  }
}
