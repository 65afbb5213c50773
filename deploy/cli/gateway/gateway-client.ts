/** The admin API as the commands use it: typed answers, and failures that say what the user can do. */
import type { z } from "zod";
import {
  type AdapterObject,
  adapterList,
  adapterObject,
  type addAdapterRequest,
} from "../../../schema/api/adapters.ts";
import {
  type AdminEstimate,
  type AdminGeneration,
  type AdminLoadList,
  type AdminWorker,
  adminEstimateList,
  adminGeneration,
  adminLoadList,
  adminWorkerList,
  type DeployedModel,
  deployedModel,
  deployedModelList,
  type deployRequest,
  type ExplainedRequest,
  explainedRequest,
} from "../../../schema/api/admin.ts";
import {
  type AdminMigration,
  adminMigration,
  adminMigrationList,
  type DrainedWorker,
  drainedWorker,
} from "../../../schema/api/migrations.ts";
import type { LoadsQuery } from "../../../schema/cluster/loads.ts";
import { errorBody } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { CommandFailure } from "../failure.ts";

export interface GatewayTarget {
  /** Base URL without a slash at its end. */
  readonly url: string;
  /** Token of the admin API; a gateway on loopback may have none. */
  readonly admin_token: string | undefined;
  /** Key of /v1; open while the gateway has none. */
  readonly api_key: string | undefined;
}

/** Characters shown of an answer that is not ours, e.g. of a proxy between. */
const foreignBodyChars = 200;

/** Calls of one gateway. Every method throws CommandFailure when the gateway cannot be reached or refuses. */
export class GatewayClient {
  readonly #target: GatewayTarget;

  constructor(target: GatewayTarget) {
    this.#target = target;
  }

  async listModels(): Promise<DeployedModel[]> {
    return (await this.#call("GET", "/admin/v1/models", deployedModelList)).data;
  }

  async deploy(request: z.input<typeof deployRequest>): Promise<DeployedModel> {
    return this.#call("POST", "/admin/v1/models", deployedModel, request);
  }

  /** False when there is no model of this name. */
  async remove(model_id: string): Promise<boolean> {
    const response = await this.#fetch("DELETE", `/admin/v1/models/${encodeURIComponent(model_id)}`);
    if (response.status === 404) return false;
    if (!response.ok) throw await refusal(response);
    return true;
  }

  /** Of one model, or all. */
  async listAdapters(model?: string): Promise<AdapterObject[]> {
    const query = model === undefined ? "" : `?${new URLSearchParams({ model })}`;
    return (await this.#call("GET", `/admin/v1/adapters${query}`, adapterList)).data;
  }

  async addAdapter(request: z.input<typeof addAdapterRequest>): Promise<AdapterObject> {
    return this.#call("POST", "/admin/v1/adapters", adapterObject, request);
  }

  /** Throws CommandFailure naming the adapters that there are when there is no such one. */
  async removeAdapter(id: string): Promise<void> {
    const response = await this.#fetch("DELETE", `/admin/v1/adapters/${encodeURIComponent(id)}`);
    if (!response.ok) throw await refusal(response);
  }

  async listWorkers(): Promise<AdminWorker[]> {
    return (await this.#call("GET", "/admin/v1/workers", adminWorkerList)).data;
  }

  async listEstimates(): Promise<AdminEstimate[]> {
    return (await this.#call("GET", "/admin/v1/estimates", adminEstimateList)).data;
  }

  async listLoads(query: Partial<LoadsQuery>): Promise<AdminLoadList> {
    const text = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    return this.#call("GET", `/admin/v1/loads?${text}`, adminLoadList);
  }

  async getGeneration(generation_id: string): Promise<AdminGeneration> {
    return this.#call("GET", `/admin/v1/generations/${generation_id}`, adminGeneration);
  }

  async getRequest(generation_id: string): Promise<ExplainedRequest> {
    return this.#call("GET", `/admin/v1/requests/${generation_id}`, explainedRequest);
  }

  async moveGeneration(generation_id: string, worker_id?: string): Promise<AdminMigration> {
    const to = worker_id === undefined ? {} : { worker_id };
    return this.#call("POST", `/admin/v1/generations/${generation_id}/move`, adminMigration, to);
  }

  /** Moves of one generation, the newest first. */
  async listMigrations(generation_id: string): Promise<AdminMigration[]> {
    const query = new URLSearchParams({ generation_id });
    return (await this.#call("GET", `/admin/v1/migrations?${query}`, adminMigrationList)).data;
  }

  async drainWorker(worker_id: string): Promise<DrainedWorker> {
    return this.#call("POST", `/admin/v1/workers/${encodeURIComponent(worker_id)}/drain`, drainedWorker);
  }

  async #call<S extends z.ZodType>(
    method: string,
    path: string,
    answer: S,
    body?: unknown,
  ): Promise<z.output<S>> {
    const response = await this.#fetch(method, path, body);
    if (!response.ok) throw await refusal(response);
    const parsed = answer.safeParse(await response.json());
    if (parsed.success) return parsed.data;
    throw new CommandFailure(`${this.#target.url}${path} answered in a form this version does not know`, {
      advice: "Gateway and command line should be of the same version.",
      cause: parsed.error,
    });
  }

  async #fetch(method: string, path: string, body?: unknown): Promise<Response> {
    return fetchGateway(this.#target, path, {
      method,
      headers: authorization(this.#target.admin_token),
      signal: AbortSignal.timeout(limits.control_call_ms),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }
}

/** A header for the token, none without one. */
export function authorization(token: string | undefined): Record<string, string> {
  const json = { "content-type": "application/json" };
  return token === undefined ? json : { ...json, authorization: `Bearer ${token}` };
}

/** fetch of a gateway's path; a gateway that is not there becomes a CommandFailure, an abort stays an abort. */
export async function fetchGateway(
  target: GatewayTarget,
  path: string,
  init: RequestInit,
): Promise<Response> {
  try {
    return await fetch(target.url + path, init);
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    const reason = error instanceof Error && error.name === "TimeoutError" ? "in time " : "";
    throw new CommandFailure(`no gateway answers ${reason}at ${target.url}`, {
      advice: "Start one with 'npm start' or 'sllm up', or name another with --url.",
      cause: error,
    });
  }
}

/** The gateway's refusal in its own words. */
export async function refusal(response: Response): Promise<CommandFailure> {
  const text = await response.text();
  const parsed = errorBody.safeParse(parseJson(text));
  if (!parsed.success) {
    const shown = text.slice(0, foreignBodyChars).trim();
    return new CommandFailure(`${response.url} answered ${response.status}: ${shown || "(nothing)"}`);
  }
  const { code, message, hint } = parsed.data.error;
  return new CommandFailure(
    `${message} (${code})`,
    hint === undefined ? {} : { advice: adviceOf(code, hint) },
  );
}

/** The hint of the error table, except where the command line knows better. */
function adviceOf(code: string, hint: string): string {
  return code === "invalid_api_key"
    ? "Give the admin token by SLLM_GATEWAY_ADMIN_TOKEN, the key of /v1 by SLLM_GATEWAY_API_KEYS."
    : code === "model_exists"
      ? "Add --replace to take its place, or choose another name."
      : hint;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // not JSON: the caller shows the text itself
  }
}
