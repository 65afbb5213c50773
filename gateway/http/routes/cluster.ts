/** The cluster API: workers register and send heartbeats. Installed behind the cluster token. */
import { Hono } from "hono";
import {
  type HeartbeatRequest,
  type HeartbeatResponse,
  heartbeatRequest,
  type RegisterResponse,
  registerRequest,
} from "../../../schema/cluster/membership.ts";
import { gatewayPaths, protocolVersion } from "../../../schema/cluster/protocol.ts";
import { parseOrThrow, SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { WorkerReports } from "../../placement/worker-reports.ts";
import type { Log, StateStore } from "../../ports.ts";
import type { AppContext, AppEnv } from "../context.ts";
import { readJson } from "../read-json.ts";

export interface ClusterDeps {
  readonly store: Pick<StateStore, "registerWorker" | "heartbeat">;
  readonly fleet: Fleet;
  readonly reports: WorkerReports;
  readonly log: Log;
}

export function clusterRoutes(deps: ClusterDeps): Hono<AppEnv> {
  const { store, fleet, reports, log } = deps;
  return new Hono<AppEnv>()
    .post(gatewayPaths.register, async (c) => {
      const report = parseOrThrow(registerRequest, await readReport(c));
      await store.registerWorker(report);
      await fleet.refresh();
      const { worker_id, url, version } = report;
      log.info("worker_registered", { worker_id, url, version });
      return c.json({ heartbeat_ms: limits.heartbeat_ms } satisfies RegisterResponse);
    })
    .post(gatewayPaths.heartbeat, async (c) => {
      const report = parseOrThrow(heartbeatRequest, await readReport(c));
      const response: HeartbeatResponse = await store.heartbeat(report);
      if (response.known) {
        reports.note(report);
        for (const { instance_id, active, queued } of report.instances) {
          if (active + queued > 0) fleet.markUsed(instance_id);
        }
        if (bringsNews(report, fleet)) await fleet.refresh();
      }
      return c.json(response);
    });
}

/** A report's size follows what the worker holds: a manifest's bound is generous for it. */
async function readReport(c: AppContext): Promise<unknown> {
  const body = await readJson(c, limits.manifest_bytes);
  const version =
    typeof body === "object" && body !== null && "protocol_version" in body ? body.protocol_version : null;
  if (version === protocolVersion) return body;
  throw new SllmError(
    "protocol_mismatch",
    `This gateway speaks protocol ${protocolVersion}, not ${version}.`,
    {
      param: "protocol_version",
    },
  );
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** True when a decision could be wrong until the fleet is read again: a state, an end, another set of checkpoints. */
function bringsNews(report: HeartbeatRequest, fleet: Fleet): boolean {
  const known = fleet.worker(report.worker_id);
  if (known?.state !== report.state) return true;
  if (!same(known.links, report.links) || !same(known.problems, report.problems)) return true;
  if (fleet.placementsOf(report.worker_id).length !== report.placements.length) return true;
  return report.instances.some(
    (i) => (i.state === "failed" || i.state === "gone") && fleet.instance(i.instance_id) !== null,
  );
}
