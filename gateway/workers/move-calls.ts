/** Calls of the worker API that move generations. */
import type { z } from "zod";
import { generationRecord } from "../../schema/cluster/attach.ts";
import {
  arrivalResponse,
  drainResponse,
  handOverResponse,
  type MoveEvent,
  runningGenerations,
} from "../../schema/cluster/moves.ts";
import { workerPaths } from "../../schema/cluster/protocol.ts";
import { SllmError } from "../../schema/error.ts";
import type { WorkerAddress, WorkerClient } from "../ports.ts";

/** A call that is not a stream: bounded in time, its answer parsed. */
export type ControlCall = <S extends z.ZodType>(
  worker: WorkerAddress,
  method: "DELETE" | "GET" | "POST",
  path: string,
  schema: S,
  body?: unknown,
) => Promise<z.output<S>>;

type MoveStream = (
  worker: WorkerAddress,
  path: string,
  request: unknown,
  signal: AbortSignal,
) => AsyncIterable<MoveEvent>;

type MoveCalls = Pick<
  WorkerClient,
  "drain" | "listGenerations" | "findGeneration" | "moveGeneration" | "handOver" | "goOn"
>;

export function moveCalls(control: ControlCall, stream: MoveStream): MoveCalls {
  const pathOf = (generation_id: string, rest = "") => `${workerPaths.generations}/${generation_id}${rest}`;
  return {
    drain: async (worker) => (await control(worker, "POST", workerPaths.drain, drainResponse)).generations,

    listGenerations: async (worker) =>
      (await control(worker, "GET", workerPaths.generations, runningGenerations)).data,

    findGeneration: (worker, generation_id) =>
      unlessUnknown(control(worker, "GET", pathOf(generation_id), generationRecord)),

    moveGeneration: (worker, generation_id, request, signal) =>
      stream(worker, pathOf(generation_id, "/move"), request, signal),

    handOver: (worker, generation_id, request) =>
      control(worker, "POST", pathOf(generation_id, "/hand-over"), handOverResponse, request),

    goOn: async (worker, generation_id, request) => {
      await control(worker, "POST", pathOf(generation_id, "/go-on"), arrivalResponse, request);
    },
  };
}

async function unlessUnknown<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof SllmError && error.code === "not_found") return null;
    throw error;
  }
}
