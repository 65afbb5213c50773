/** A gateway on a store in memory and scripted workers, reached through `app.request()`: no sockets, no processes. */
import { createGateway, type Gateway } from "../../gateway/gateway.ts";
import type { Clock, LogFields } from "../../gateway/ports.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { systemRandom } from "../../gateway/system/random.ts";
import type { DeployRequest } from "../../schema/api/admin.ts";
import type { RegisterRequest } from "../../schema/cluster/membership.ts";
import { type GatewayConfig, gatewayConfig } from "../../schema/config.ts";
import {
  cpuDevice,
  makeDeployRequest,
  makeHeartbeat,
  makePlacement,
  makeRegisterRequest,
} from "./cluster-facts.ts";
import { MemoryStateStore } from "./memory-state-store.ts";
import { ScriptedWorker } from "./scripted-worker.ts";

export const clusterToken = "cluster-token-of-the-tests";

export interface LogLine {
  readonly level: "info" | "warn" | "error";
  readonly event: string;
  readonly fields: LogFields;
}

export interface SceneOptions {
  readonly config?: Partial<GatewayConfig>;
  readonly clock?: Clock;
  readonly store?: MemoryStateStore;
  readonly workers?: ScriptedWorker;
}

export class GatewayScene {
  readonly store: MemoryStateStore;
  readonly workers: ScriptedWorker;
  readonly gateway: Gateway;
  readonly log: LogLine[] = [];
  #sequence = 0;

  constructor(options: SceneOptions = {}) {
    const clock = options.clock ?? systemClock;
    this.store = options.store ?? new MemoryStateStore(clock);
    this.workers = options.workers ?? new ScriptedWorker();
    const write =
      (level: LogLine["level"]) =>
      (event: string, fields: LogFields = {}) => {
        this.log.push({ level, event, fields });
      };
    this.gateway = createGateway({
      // Tests that are not about parking see instances end.
      config: { ...gatewayConfig.parse({}), park_ms: 0, ...options.config },
      cluster_token: clusterToken,
      store: this.store,
      workers: this.workers,
      clock,
      random: systemRandom,
      log: { info: write("info"), warn: write("warn"), error: write("error") },
      version: "0.0.0-test",
    });
  }

  /** Deploys through the admin API; the model's checkpoint is new unless given. */
  async deploy(fields: Partial<DeployRequest> = {}): Promise<DeployRequest> {
    const request = makeDeployRequest(fields);
    const response = await this.post("/admin/v1/models", request);
    if (response.status !== 201) throw new Error(`deploy: ${response.status} ${await response.text()}`);
    return request;
  }

  /** Registers a worker that has the checkpoints of these models on disk. */
  async register(
    models: readonly DeployRequest[],
    fields: Partial<RegisterRequest> = {},
  ): Promise<RegisterRequest> {
    const placements = models.map((m) =>
      makePlacement({ checkpoint: m.manifest.digest, bytes_present: m.manifest.weights.bytes }),
    );
    const request = makeRegisterRequest({ placements, devices: [cpuDevice(2 ** 40)], ...fields });
    const response = await this.post("/cluster/v1/register", request, clusterHeaders);
    if (response.status !== 200) throw new Error(`register: ${response.status} ${await response.text()}`);
    return request;
  }

  async heartbeat(
    worker: RegisterRequest,
    fields: Parameters<typeof makeHeartbeat>[2] = {},
  ): Promise<Response> {
    const body = makeHeartbeat(worker, this.#sequence++, { placements: worker.placements, ...fields });
    return await this.post("/cluster/v1/heartbeat", body, clusterHeaders);
  }

  /** One model on one worker. */
  async ready(): Promise<{ model: DeployRequest; worker: RegisterRequest }> {
    const model = await this.deploy();
    return { model, worker: await this.register([model]) };
  }

  /** A model whose instance is loaded: the next request is a warm one. */
  async warm(): Promise<{ model: DeployRequest; worker: RegisterRequest; instance_id: string }> {
    const { model, worker } = await this.ready();
    const response = await this.chat(model.id);
    await response.text();
    const [instance] = (await this.store.snapshot()).instances;
    if (instance === undefined) throw new Error("no instance was started");
    return { model, worker, instance_id: instance.instance_id };
  }

  chat(model: string, fields: object = {}, init: RequestInit = {}): Promise<Response> {
    const body = { model, messages: [{ role: "user", content: "Hi" }], ...fields };
    return this.post("/v1/chat/completions", body, {}, init);
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}, init: RequestInit = {}) {
    return await this.gateway.app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Response> {
    return await this.gateway.app.request(path, { headers });
  }
}

export const clusterHeaders = { authorization: `Bearer ${clusterToken}` };
