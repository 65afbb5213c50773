/** GET /v1/models and /v1/models/{id}: what is deployed and what it is doing, from what the gateway knows. */
import { Hono } from "hono";
import type { ModelList, ModelObject } from "../../../schema/api/models.ts";
import { taskOf } from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import type { Fleet, FleetModel } from "../../placement/fleet.ts";
import { modelStatus } from "../../placement/model-status.ts";
import type { StartHistory } from "../../placement/start-history.ts";
import type { AppEnv } from "../context.ts";

export interface ModelsDeps {
  readonly fleet: Fleet;
  readonly history: StartHistory;
}

/** Ids may hold `/` and `:`, plain or percent-encoded. */
export function modelsRoutes({ fleet, history }: ModelsDeps): Hono<AppEnv> {
  const toObject = ({ row, facts }: FleetModel): ModelObject => ({
    id: row.model_id,
    object: "model",
    created: Math.floor(row.created_at.getTime() / 1000),
    owned_by: "sllm",
    status: modelStatus(row, fleet.instances, history.hasFailed(row.model_id, row.checkpoint)),
    task: taskOf(facts.model),
    context_tokens: row.context_tokens,
  });
  return new Hono<AppEnv>()
    .get("/v1/models", async (c) => {
      await fleet.known();
      const data = fleet.activeModels().map(toObject);
      return c.json({ object: "list", data } satisfies ModelList);
    })
    .get("/v1/models/:id{.+}", async (c) => {
      const id = c.req.param("id");
      const model = await fleet.findActiveModel(id);
      if (model === null) throw new SllmError("model_not_found", `The model '${id}' is not deployed.`);
      return c.json(toObject(model));
    });
}
