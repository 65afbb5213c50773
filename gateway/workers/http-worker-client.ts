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
import type { CheckpointDigest, GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { WorkerAddress, WorkerClient } from "../ports.ts";
import { readEventStream, SilentStream } from "./event-stream.ts";
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

  const events = <S extends z.ZodType>(
    worker: WorkerAddress,
    kind: Stream<S>,
    signal: AbortSignal,
    ...[method, path, body]: [method: string, path: string, body?: unknown]
  ) => stream(options.fetch, worker, kind, signal, (opening) => call(worker, method, path, opening, body));

  return {
    load: (worker, request, signal) =>
      events(worker, loadStream, signal, "POST", workerPaths.instances, request),
    generate: (worker, request, signal) =>
      events(worker, generationStream, signal, "POST", workerPaths.generations, request),
    embed: (worker, request, signal) =>
      events(worker, generationStream, signal, "POST", workerPaths.embeddings, request),

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

    attach: (worker, generation_id, query, signal) =>
      events(worker, attachStream, signal, "GET", `${pathOf(generation_id)}/events${queryText(query)}`),

    ...moveCalls(control, (worker, path, request, signal) =>
      events(worker, moveStream, signal, "POST", path, request),
    ),

    cancel: async (worker, generation_id, query: CancelQuery = {}) => {
      const path = `${pathOf(generation_id)}${queryText(query)}`;
      return (await unlessGone(control(worker, "DELETE", path, cancelResponse))) ?? { cancelled: false };
    },
  };
}

function pathOf(generation_id: GenerationId): string {
  return `${workerPaths.generations}/${generation_id}`;
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

/** Whether the worker's process says anything at all, within the time that a reader who comes back would wait. */
async function answers(fetch: Fetch, worker: WorkerAddress): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(limits.attach_ms);
    const response = await fetch(new URL(workerPaths.livez, worker.url).href, { signal, redirect: "error" });
    await response.body?.cancel();
    return true;
  } catch {
    return false;
  }
}

/**
 * Opens a stream of events and yields them up to the last one. Ends silently when the signal aborts; a connection
 * that breaks, falls silent or closes before the last event throws `worker_unavailable`. While it falls silent the worker
 * is asked whether it lives: one that does not answer either (`is_silent`) need not be asked again.
 */
async function* stream<S extends z.ZodType>(
  fetch: Fetch,
  worker: WorkerAddress,
  { schema, isLast, open_ms }: Stream<S>,
  signal: AbortSignal,
  open: (opening: AbortSignal) => Promise<Response>,
): AsyncGenerator<z.output<S>> {
  let living: Promise<boolean> | null = null;
  const onQuiet = () => {
    living = answers(fetch, worker);
  };
  try {
    const response = await within(open_ms, signal, open);
    if (response.body === null) throw unavailable(worker, "sent no stream");
    const parse = (data: string) => schema.parse(JSON.parse(data));
    const watched = open_ms === null ? {} : { silence_ms: limits.stream_silence_ms, onQuiet };
    for await (const event of readEventStream(response.body, signal, { parse, isLast, ...watched })) {
      yield event;
      if (isLast(event)) return;
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof SllmError) throw error;
    const is_silent = error instanceof SilentStream && (await living) === false;
    throw unavailable(worker, "broke off its stream", error, is_silent);
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

function unavailable(worker: WorkerAddress, what: string, cause?: unknown, is_silent = false): SllmError {
  return new SllmError("worker_unavailable", `Worker ${worker.worker_id} ${what}.`, { cause, is_silent });
}
