/** The API of the worker that a generation moves to, as its source calls it. */
import type { z } from "zod";
import type { KvPart } from "../../schema/cluster/kv.ts";
import {
  type ArrivalGo,
  type ArrivalProgress,
  type ArrivalRequest,
  type ArrivalResponse,
  type ArrivalRound,
  arrivalProgress,
  arrivalResponse,
  type MoveDestination,
} from "../../schema/cluster/moves.ts";
import { incarnationHeader, workerPaths } from "../../schema/cluster/protocol.ts";
import { type ErrorCode, errorCodes } from "../../schema/codes.ts";
import { errorBody, SllmError } from "../../schema/error.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";

/**
 * Calls throw an SllmError: `worker_unavailable` when it is not known what came of them, any other code when the
 * destination has refused.
 */
export interface Destination {
  open(request: ArrivalRequest): Promise<ArrivalResponse>;
  /** Rows of the KV cache that it waits for. */
  kv(generation_id: GenerationId, part: KvPart, rows: Uint8Array): Promise<void>;
  round(generation_id: GenerationId, round: ArrivalRound): Promise<ArrivalProgress>;
  go(generation_id: GenerationId, last: ArrivalGo): Promise<void>;
  drop(generation_id: GenerationId, epoch: number): Promise<void>;
}

/** What is used of the platform's fetch. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface HttpDestinationOptions {
  readonly to: MoveDestination;
  readonly cluster_token: string;
  readonly fetch: Fetch;
}

export function httpDestination(options: HttpDestinationOptions): Destination {
  const at = (generation_id: GenerationId, rest = "") => `${workerPaths.arrivals}/${generation_id}${rest}`;
  return {
    open: (request) => call(options, "POST", workerPaths.arrivals, arrivalResponse, request),
    kv: async (generation_id, { epoch, from, to, digest }, rows) => {
      const query = `epoch=${epoch}&from=${from}&to=${to}&digest=${digest}`;
      // It answers when its engine has them, which may be in a long step.
      await call(
        options,
        "PUT",
        at(generation_id, `/kv?${query}`),
        arrivalResponse,
        rows,
        limits.arrival_wait_ms,
      );
    },
    round: (generation_id, round) =>
      call(options, "POST", at(generation_id, "/rounds"), arrivalProgress, round, round.wait_ms),
    go: async (generation_id, last) => {
      await call(options, "POST", at(generation_id, "/go"), arrivalResponse, last);
    },
    drop: async (generation_id, epoch) => {
      await call(options, "DELETE", at(generation_id, `?epoch=${epoch}`), arrivalResponse);
    },
  };
}

async function call<S extends z.ZodType>(
  { to, cluster_token, fetch }: HttpDestinationOptions,
  method: string,
  path: string,
  schema: S,
  body?: unknown,
  wait_ms = 0,
): Promise<z.output<S>> {
  const isBytes = body instanceof Uint8Array;
  let response: Response;
  let answer: unknown;
  try {
    response = await fetch(new URL(path, to.url).href, {
      method,
      redirect: "error",
      signal: AbortSignal.timeout(wait_ms + limits.hand_over_ms),
      headers: {
        authorization: `Bearer ${cluster_token}`,
        [incarnationHeader]: to.incarnation,
        ...(body === undefined
          ? {}
          : { "content-type": isBytes ? "application/octet-stream" : "application/json" }),
      },
      ...(body === undefined ? {} : { body: isBytes ? new Uint8Array(body) : JSON.stringify(body) }),
    });
    answer = await response.json();
  } catch (cause) {
    throw new SllmError("worker_unavailable", `Worker ${to.worker_id} does not answer.`, { cause });
  }
  if (!response.ok) throw refusal(to, answer);
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  const message = `Worker ${to.worker_id} answered with something else.`;
  throw new SllmError("worker_unavailable", message, { cause: parsed.error });
}

/** What is not our envelope comes from something else that answers there; what failed inside may have been done. */
function refusal({ worker_id }: MoveDestination, answer: unknown): SllmError {
  const error = errorBody.safeParse(answer).data?.error;
  const code = errorCodes.find((known): known is ErrorCode => known === error?.code);
  if (error !== undefined && code !== undefined && code !== "internal")
    return new SllmError(code, error.message);
  return new SllmError("worker_unavailable", `Worker ${worker_id} failed: ${error?.message ?? "no reason"}`);
}
