/** The worker API over HTTP. `fetch` is given, so that each runtime can bring its own connection pool. */
import type { z } from "zod";
import {
  type AttachQuery,
  attachEvent,
  type CancelQuery,
  cancelResponse,
  isLastAttachEvent,
} from "../../schema/cluster/attach.ts";
import { generationEvent, isLastEvent } from "../../schema/cluster/generate.ts";
import { type LoadEvent, loadEvent, parkResponse, unloadResponse } from "../../schema/cluster/instances.ts";
import { type LoadsQuery, loadTraceList } from "../../schema/cluster/loads.ts";
import { isLastMoveEvent, moveEvent } from "../../schema/cluster/moves.ts";
import { type PreloadRequest, preloadResponse } from "../../schema/cluster/preloads.ts";
import { incarnationHeader, protocolVersion, workerPaths } from "../../schema/cluster/protocol.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { WorkerAddress, WorkerClient } from "../ports.ts";
import { readEventStream } from "./event-stream.ts";
import { moveCalls } from "./move-calls.ts";
import { toWorkerRefusal } from "./refusal.ts";

/** What is used of the platform's fetch. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface HttpWorkerClientOptions {
  readonly fetch: Fetch;
  readonly cluster_token: string;
}

export function createHttpWorkerClient(options: HttpWorkerClientOptions): WorkerClient {
  const call = (worker: WorkerAddress, method: string, path: string, signal: AbortSignal, body?: unknown) =>
    send(options, worker, method, path, signal, body);

  /** A call that is not a stream: bounded in time, its answer parsed. */
  const control = async <S extends z.ZodType>(
    worker: WorkerAddress,
    method: "DELETE" | "GET" | "POST",
    path: string,
    schema: S,
    body?: unknown,
  ) => {
    const response = await call(worker, method, path, AbortSignal.timeout(limits.control_call_ms), body);
    const parsed = schema.safeParse(await response.json().catch(() => null));
    if (!parsed.success) throw unavailable(worker, "answered with something else", parsed.error);
    return parsed.data;
  };

  const generation = (worker: WorkerAddress, path: string, request: unknown, signal: AbortSignal) =>
    stream(worker, generationStream, signal, (opening) => call(worker, "POST", path, opening, request));

  return {
    load: (worker, request, signal) => {
      const open = (opening: AbortSignal) => call(worker, "POST", workerPaths.instances, opening, request);
      return stream(worker, loadStream, signal, open);
    },

    generate: (worker, request, signal) => generation(worker, workerPaths.generations, request, signal),
    embed: (worker, request, signal) => generation(worker, workerPaths.embeddings, request, signal),

    unload: async (worker, instance_id, { if_idle }) => {
      const path = `${workerPaths.instances}/${instance_id}${if_idle ? "?if_idle=1" : ""}`;
      await unlessGone(control(worker, "DELETE", path, unloadResponse));
    },

    park: async (worker, instance_id) =>
      void (await control(worker, "POST", `${workerPaths.instances}/${instance_id}/park`, parkResponse)),

    preload: async (worker, checkpoint) =>
      (await control(worker, "POST", workerPaths.preloads, preloadResponse, toPreload(checkpoint))).outcome,

    loadTraces: async (worker, query) =>
      (await control(worker, "GET", `${workerPaths.loads}${queryText(query)}`, loadTraceList)).data,

    attach: (worker, generation_id, query, signal) => {
      const path = `${workerPaths.generations}/${generation_id}/events${queryText(query)}`;
      const open = (opening: AbortSignal) => call(worker, "GET", path, opening);
      return stream(worker, attachStream, signal, open);
    },

    ...moveCalls(control, (worker, path, request, signal) =>
      stream(worker, moveStream, signal, (opening) => call(worker, "POST", path, opening, request)),
    ),

    cancel: async (worker, generation_id, query: CancelQuery = {}) => {
      const path = `${workerPaths.generations}/${generation_id}${queryText(query)}`;
      return (await unlessGone(control(worker, "DELETE", path, cancelResponse))) ?? { cancelled: false };
    },
  };
}

function toPreload(checkpoint: CheckpointDigest): PreloadRequest {
  return { protocol_version: protocolVersion, checkpoint };
}

/** null when the worker does not know what the call is about (any more). */
async function unlessGone<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof SllmError && error.code === "not_found") return null;
    throw error;
  }
}

/** Fields that are not given stay out. */
function queryText(query: LoadsQuery | AttachQuery | CancelQuery): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  if (given.length === 0) return "";
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

/** One HTTP call; resolves with a 2xx response, whose body is the caller's to read or cancel. */
async function send(
  options: HttpWorkerClientOptions,
  worker: WorkerAddress,
  method: string,
  path: string,
  signal: AbortSignal,
  body: unknown,
): Promise<Response> {
  let response: Response;
  try {
    response = await options.fetch(new URL(path, worker.url).href, {
      method,
      signal,
      redirect: "error",
      headers: {
        authorization: `Bearer ${options.cluster_token}`,
        [incarnationHeader]: worker.incarnation,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    throw unavailable(worker, "does not answer", error);
  }
  if (!response.ok) throw await toWorkerRefusal(worker, response);
  return response;
}

const generationStream = { schema: generationEvent, isLast: isLastEvent, open_ms: limits.stream_silence_ms };
const attachStream = { schema: attachEvent, isLast: isLastAttachEvent, open_ms: limits.attach_ms };
const moveStream = { schema: moveEvent, isLast: isLastMoveEvent, open_ms: limits.attach_ms };
const loadStream = {
  schema: loadEvent,
  isLast: (event: LoadEvent) => event.type !== "progress",
  open_ms: null,
};

interface Stream<S extends z.ZodType> {
  readonly schema: S;
  readonly isLast: (event: z.output<S>) => boolean;
  /** By when the worker must have answered; from then on its silence counts. null: neither counts. */
  readonly open_ms: number | null;
}

/**
 * Opens a stream of events and yields them up to the last one. Ends silently when the signal aborts; a connection
 * that breaks, falls silent or closes before the last event throws `worker_unavailable`.
 */
async function* stream<S extends z.ZodType>(
  worker: WorkerAddress,
  { schema, isLast, open_ms }: Stream<S>,
  signal: AbortSignal,
  open: (opening: AbortSignal) => Promise<Response>,
): AsyncGenerator<z.output<S>> {
  try {
    const response = await within(open_ms, signal, open);
    if (response.body === null) throw unavailable(worker, "sent no stream");
    const parse = (data: string) => schema.parse(JSON.parse(data));
    const watched = open_ms === null ? {} : { silence_ms: limits.stream_silence_ms };
    for await (const event of readEventStream(response.body, signal, { parse, isLast, ...watched })) {
      yield event;
      if (isLast(event)) return;
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof SllmError) throw error;
    throw unavailable(worker, "broke off its stream", error);
  }
  if (!signal.aborted) throw unavailable(worker, "ended its stream early");
}

/** Opens within a time; afterwards the response lasts as long as the signal lets it. */
async function within(
  open_ms: number | null,
  signal: AbortSignal,
  open: (opening: AbortSignal) => Promise<Response>,
): Promise<Response> {
  if (open_ms === null) return await open(signal);
  const opening = new AbortController();
  const leave = () => opening.abort();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  const timer = setTimeout(leave, open_ms);
  try {
    return await open(opening.signal);
  } finally {
    clearTimeout(timer);
  }
}

function unavailable(worker: WorkerAddress, what: string, cause?: unknown): SllmError {
  return new SllmError("worker_unavailable", `Worker ${worker.worker_id} ${what}.`, { cause });
}
