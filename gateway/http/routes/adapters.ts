/** /admin/v1/adapters: LoRA adapters of deployed models, checked against them when they are added. */
import { Hono } from "hono";
import { type AdapterObject, adaptersQuery, addAdapterRequest } from "../../../schema/api/adapters.ts";
import type { AdapterRow } from "../../../schema/db/tables.ts";
import { parseOrThrow } from "../../../schema/error.ts";
import { formatAdapterId, modelId, parseAdapterId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { adapterNotFound, modelNotFound } from "../../placement/find-target.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { Log, StateStore } from "../../ports.ts";
import { checkAdapter } from "../check-adapter.ts";
import { checkManifestDigest } from "../check-manifest.ts";
import type { AppEnv } from "../context.ts";
import { readBody } from "../read-json.ts";

export interface AdapterDeps {
  readonly store: Pick<StateStore, "getModel" | "addAdapter" | "removeAdapter">;
  readonly fleet: Fleet;
  readonly log: Log;
}

/**
 * POST answers 201 with the adapter, 404 `model_not_found`, 409 `adapter_exists`, 422 for a manifest that does not match
 * its digest or an adapter that does not fit; DELETE answers 200 and leaves running answers to their end.
 */
export function adapterRoutes({ store, fleet, log }: AdapterDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .post("/", async (c) => {
      const { model, name, manifest, replace } = await readBody(c, addAdapterRequest, limits.manifest_bytes);
      const id = parseOrThrow(modelId, formatAdapterId(model, name), "name");
      await checkManifestDigest(manifest);
      const found = await store.getModel(model);
      if (found?.model.state !== "active") {
        throw modelNotFound(model);
      }
      checkAdapter(found.model, found.checkpoint.manifest, manifest);
      const { digest, adapter, weights } = manifest;
      const row = await store.addAdapter({
        model_id: model,
        name,
        base: found.model.checkpoint,
        checkpoint: digest,
        rank: adapter.rank,
        weights_bytes: weights.bytes,
        replace,
      });
      await fleet.refresh();
      log.info("adapter_added", { model_id: model, adapter: name, checkpoint: digest, id });
      return c.json(toAdapterObject(row), 201);
    })
    .get("/", async (c) => {
      const { model } = parseOrThrow(adaptersQuery, c.req.query(), "query");
      await fleet.refresh();
      const rows = model === undefined ? fleet.snapshot.adapters : fleet.adaptersOf(model);
      return c.json({ data: rows.map(toAdapterObject) });
    })
    .delete("/:id{.+}", async (c) => {
      const id = c.req.param("id");
      const named = parseAdapterId(id);
      if (named === null || !(await store.removeAdapter(named.model_id, named.name))) {
        await fleet.refresh();
        throw adapterNotFound(id, named === null ? [] : fleet.adaptersOf(named.model_id));
      }
      await fleet.refresh();
      log.info("adapter_removed", { model_id: named.model_id, adapter: named.name });
      return c.json({ id, deleted: true });
    });
}

function toAdapterObject({ model_id, name, created_at, ...row }: AdapterRow): AdapterObject {
  const { checkpoint, rank, weights_bytes } = row;
  const id = formatAdapterId(model_id, name);
  return { id, model: model_id, name, checkpoint, rank, weights_bytes, created_at: created_at.toISOString() };
}
