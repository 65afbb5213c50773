/**
 * Keeps the gateways informed: registers with the first of the list that answers, heartbeats in its rhythm and at
 * once after changes, registers again when it is not known (any more), and stops what the cluster has let go.
 */
import type { z } from "zod";
import {
  type HeartbeatRequest,
  type HeartbeatResponse,
  heartbeatResponse,
  type RegisterRequest,
  registerResponse,
} from "../../schema/cluster/membership.ts";
import { gatewayPaths } from "../../schema/cluster/protocol.ts";
import { errorBody } from "../../schema/error.ts";
import type { CheckpointDigest, InstanceId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log } from "../ports.ts";
import { backOffMs } from "./back-off.ts";

/** How long the last report of a worker that ends may take. */
const goodbyeMs = 1_000;

/** What is used of the platform's fetch. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** What the worker holds now: the common part of both messages. */
export type Report = Omit<HeartbeatRequest, "sequence">;

export interface GatewayLinkOptions {
  readonly gateways: readonly string[];
  readonly cluster_token: string;
  /** What registration adds to a report. */
  readonly identity: Pick<RegisterRequest, "url" | "version" | "devices">;
  readonly report: () => Promise<Report>;
  /** The cluster wants these no longer. */
  readonly onRelease: (instances: readonly InstanceId[]) => void;
  /** What a gateway says is deployed of the reported checkpoints. */
  readonly onDeployed: (checkpoints: readonly CheckpointDigest[], report: Report) => void;
  /** Another process has registered as this worker: the cluster takes nothing from this one any more. */
  readonly onSuperseded: () => void;
  /** A gateway has taken this report in. */
  readonly onReported: (report: Report) => void;
  readonly fetch: Fetch;
  readonly clock: Clock;
  /** From 0 to below 1. */
  readonly random: () => number;
  readonly log: Log;
}

export class GatewayLink {
  readonly #options: GatewayLinkOptions;
  readonly #stopping = new AbortController();
  #wake = new AbortController();
  #index = 0;
  #registered = false;
  /** That a gateway took this process in once, whichever it was. */
  #wasRegistered = false;
  #heartbeatMs: number = limits.heartbeat_ms;
  #failures = 0;
  #sequence = 0;
  #running: Promise<void> | null = null;

  constructor(options: GatewayLinkOptions) {
    this.#options = options;
  }

  /** The gateway that knows this worker; null while there is none. */
  get gateway(): string | null {
    return this.#registered ? (this.#options.gateways[this.#index] ?? null) : null;
  }

  /** Begins to register and heartbeat until `stop`. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Something changed: the next heartbeat goes out at once, or right after the one that is under way. */
  notify(): void {
    if (this.#registered) this.#wake.abort();
  }

  /** Ends the rhythm and says a last time what there is; does not insist when nobody listens. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake.abort();
    await this.#running;
    if (this.#registered) await this.#heartbeat(AbortSignal.timeout(goodbyeMs));
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#wake = new AbortController();
      const call = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(limits.control_call_ms)]);
      const heard = this.#registered ? await this.#heartbeat(call) : await this.#register(call);
      if (this.#stopping.signal.aborted) return;
      this.#failures = heard ? 0 : this.#failures + 1;
      if (!heard) this.#tryNextGateway();
      // A worker that was told to register again does so at once.
      if (heard && !this.#registered) continue;
      const pauseMs = heard ? this.#heartbeatMs : backOffMs(this.#failures, this.#options.random());
      await this.#options.clock.sleep(pauseMs, this.#wake.signal);
    }
  }

  #tryNextGateway(): void {
    if (this.#options.gateways.length < 2) return;
    this.#index = (this.#index + 1) % this.#options.gateways.length;
    this.#registered = false;
  }

  /** False when the gateway did not answer as it should. */
  async #register(signal: AbortSignal): Promise<boolean> {
    const report = await this.#options.report();
    const answer = await this.#post(
      gatewayPaths.register,
      { ...report, ...this.#options.identity, ...(this.#wasRegistered ? { again: true } : {}) },
      registerResponse,
      signal,
    );
    if (answer === null) return false;
    this.#registered = true;
    this.#wasRegistered = true;
    this.#heartbeatMs = answer.heartbeat_ms;
    this.#options.log.info("registered", { gateway: this.gateway });
    this.#options.onReported(report);
    return true;
  }

  async #heartbeat(signal: AbortSignal): Promise<boolean> {
    const report = await this.#options.report();
    const request: HeartbeatRequest = { ...report, sequence: this.#sequence++ };
    const answer = await this.#post(gatewayPaths.heartbeat, request, heartbeatResponse, signal);
    if (answer === null) return false;
    this.#take(answer, report);
    return true;
  }

  #take(answer: HeartbeatResponse, report: Report): void {
    if (!answer.known) {
      this.#registered = false;
      this.#options.log.warn("unknown_to_gateway", { gateway: this.#options.gateways[this.#index] });
      return;
    }
    this.#options.onReported(report);
    this.#options.onDeployed(answer.deployed, report);
    if (answer.release.length > 0) this.#options.onRelease(answer.release);
  }

  #superseded(): void {
    this.#registered = false;
    this.#stopping.abort();
    this.#options.onSuperseded();
  }

  /** The parsed answer; null, with a log line, when there is none that can be used. */
  async #post<S extends z.ZodType>(
    path: string,
    body: unknown,
    schema: S,
    signal: AbortSignal,
  ): Promise<z.output<S> | null> {
    const gateway = this.#options.gateways[this.#index];
    if (gateway === undefined) return null;
    try {
      const response = await this.#options.fetch(new URL(path, gateway).href, {
        method: "POST",
        redirect: "error",
        signal,
        headers: {
          authorization: `Bearer ${this.#options.cluster_token}`,
          "content-type": "application/json",
        },
        body: JSON.stringify(body),
      });
      const text = await response.text();
      if (response.ok) return schema.parse(JSON.parse(text));
      const code = errorBody.safeParse(parseJson(text)).data?.error.code;
      this.#options.log.warn("gateway_refused", {
        gateway,
        path,
        status: response.status,
        code: code ?? null,
      });
      if (code === "stale_epoch") this.#superseded();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      // A call that our own stop cut says nothing about the gateway.
      const isNews = this.#failures === 0 && !this.#stopping.signal.aborted;
      if (isNews) this.#options.log.warn("gateway_silent", { gateway, path, reason });
    }
    return null;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Something else answers there: it has no code of ours.
    return null;
  }
}
