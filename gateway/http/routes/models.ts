/** GET /v1/models and /v1/models/{id}: models, their adapters and what they are doing, from what the gateway knows. */
import { Hono } from "hono";
import type { ModelList, ModelObject } from "../../../schema/api/models.ts";
import { taskOf } from "../../../schema/checkpoint/manifest.ts";
import { formatAdapterId } from "../../../schema/ids.ts";
import { findTarget, type Target } from "../../placement/find-target.ts";
import type { Fleet } from "../../placement/fleet.ts";
import { modelStatus } from "../../placement/model-status.ts";
import type { StartHistory } from "../../placement/start-history.ts";
import type { AppEnv } from "../context.ts";

export interface ModelsDeps {
  readonly fleet: Fleet;
  readonly history: StartHistory;
}

/** Ids may hold `/` and `:`, plain or percent-encoded. */
export function modelsRoutes({ fleet, history }: ModelsDeps): Hono<AppEnv> {
  const toObject = ({ model: { row, facts }, adapter }: Target): ModelObject => ({
    id: adapter === null ? row.model_id : formatAdapterId(row.model_id, adapter.name),
    object: "model",
    created: Math.floor((adapter ?? row).created_at.getTime() / 1000),
    owned_by: "sllm",
    status: modelStatus(row, fleet.instances, history.hasFailed(row.model_id, row.checkpoint)),
    task: taskOf(facts.model),
    context_tokens: row.context_tokens,
    ...(adapter === null ? {} : { parent: row.model_id }),
  });
  return new Hono<AppEnv>()
    .get("/v1/models", async (c) => {
      await fleet.known();
      const targets = fleet
        .activeModels()
        .flatMap((model) => [null, ...model.adapters].map((adapter) => ({ model, adapter })));
      return c.json({ object: "list", data: targets.map(toObject) } satisfies ModelList);
    })
    .get("/v1/models/:id{.+}", async (c) => {
      const id = c.req.param("id");
      return c.json(toObject(await findTarget(fleet, id)));
    });
}
