/** Generations at this worker: begun, read by further readers, ended. */
import { Hono } from "hono";
import { attachQuery, type CancelResponse, cancelQuery } from "../../schema/cluster/attach.ts";
import { embedRequest } from "../../schema/cluster/embed.ts";
import { generateRequest } from "../../schema/cluster/generate.ts";
import { workerPaths } from "../../schema/cluster/protocol.ts";
import { parseOrThrow } from "../../schema/error.ts";
import { generationId } from "../../schema/ids.ts";
import type { GenerationRegistry } from "../generations/registry.ts";
import type { Clock } from "../ports.ts";
import { eventStream } from "./event-stream.ts";
import { readBody } from "./read-body.ts";

export function generationRoutes(generations: GenerationRegistry, clock: Clock): Hono {
  const app = new Hono();
  app.post(workerPaths.generations, async (c) => {
    const generation = generations.start(await readBody(c, generateRequest));
    return eventStream(generation.readRun(), clock, c.req.raw.signal);
  });
  app.post(workerPaths.embeddings, async (c) => {
    const embedding = generations.start(await readBody(c, embedRequest));
    return eventStream(embedding.readRun(), clock, c.req.raw.signal);
  });
  app.get(`${workerPaths.generations}/:id/events`, (c) => {
    const generation_id = parseOrThrow(generationId, c.req.param("id"), "id");
    const reader = generations.attach(generation_id, parseOrThrow(attachQuery, c.req.query(), "query"));
    return eventStream(reader, clock, c.req.raw.signal);
  });
  app.delete(`${workerPaths.generations}/:id`, (c) => {
    const generation_id = parseOrThrow(generationId, c.req.param("id"), "id");
    const query = parseOrThrow(cancelQuery, c.req.query(), "query");
    return c.json(generations.cancel(generation_id, query) satisfies CancelResponse);
  });
  return app;
}
