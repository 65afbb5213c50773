/** /v1/generations: those that may be read again are read, looked at and cancelled by their ids. */
import { Hono } from "hono";
import { type CancelView, type GenerationView, streamQuery } from "../../../schema/api/generations.ts";
import { parseOrThrow, SllmError } from "../../../schema/error.ts";
import { generationId } from "../../../schema/ids.ts";
import type { Resumables } from "../../dispatch/resumables.ts";
import type { StateStore } from "../../ports.ts";
import { ChatShape } from "../chat-shape.ts";
import type { AppContext, AppEnv } from "../context.ts";
import { respondFound } from "../respond-found.ts";
import type { StreamDeps } from "../respond-stream.ts";
import { TextShape } from "../text-shape.ts";

export interface GenerationRouteDeps extends StreamDeps {
  readonly resumables: Resumables;
  readonly store: Pick<StateStore, "getStored">;
}

export function generationRoutes(deps: GenerationRouteDeps): Hono<AppEnv> {
  const { resumables, store } = deps;
  return new Hono<AppEnv>()
    .get("/v1/generations/:id", async (c) => {
      const id = idOf(c);
      const stored = await store.getStored(id);
      if (stored === null || stored.record.tenant !== c.get("client").tenant) {
        throw new SllmError("not_found", `The generation '${id}' is not known.`);
      }
      const { model_id, state, finish_reason, created_at } = stored.row;
      const model = stored.record.settings.origin?.model ?? model_id;
      const created = Math.floor(created_at.getTime() / 1000);
      return c.json({
        id,
        object: "generation",
        model,
        state,
        finish_reason,
        created,
      } satisfies GenerationView);
    })
    .get("/v1/generations/:id/stream", async (c) => {
      const generation_id = idOf(c);
      const { starting_after: after } = parseOrThrow(streamQuery, c.req.query(), "query");
      const { tenant } = c.get("client");
      const found = await resumables.open({ generation_id, tenant, after, seen_worker: null });
      const Shape = found.origin?.shape === "text" ? TextShape : ChatShape;
      const toShape = (answer: ConstructorParameters<typeof Shape>[0]) => new Shape(answer);
      return respondFound(c, deps, found, {
        body: null,
        request: null,
        toShape,
        after: after < 0 ? null : after,
      });
    })
    .post("/v1/generations/:id/cancel", async (c) => {
      const id = idOf(c);
      const cancelled = await resumables.cancel(id, c.get("client").tenant);
      return c.json({ id, cancelled } satisfies CancelView);
    });
}

function idOf(c: AppContext): string {
  return parseOrThrow(generationId, c.req.param("id"), "id");
}
