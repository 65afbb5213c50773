/** GET /v1/status of a worker: what an operator wants to see first. */
import { z } from "zod";
import { workerId } from "../ids.ts";
import { workerStates } from "../vocab.ts";
import { deviceReport, instanceReport, placementReport } from "./membership.ts";

export const workerStatus = z.strictObject({
  worker_id: workerId,
  /** Of this process, its epoch. */
  incarnation: z.string(),
  version: z.string(),
  state: z.enum(workerStates),
  gateway: z.string().nullable(),
  devices: z.array(deviceReport),
  placements: z.array(placementReport),
  /** Engine processes in reserve that have loaded everything no model decides. */
  standby_engines: z.number().int().min(0),
  /** Those that hold the skeleton of a likely model. */
  standby_skeletons: z.number().int().min(0),
  instances: z.array(
    instanceReport.extend({
      /** Process id of the engine; null before it started and after it ended. */
      pid: z.number().int().nullable(),
    }),
  ),
});
export type WorkerStatus = z.infer<typeof workerStatus>;
