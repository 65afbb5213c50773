/** Generations that leave for another worker, at a gateway's word, and those that other workers send here. */
import { Hono } from "hono";
import type { GenerationRecord } from "../../schema/cluster/attach.ts";
import { epoch } from "../../schema/cluster/generate.ts";
import { kvPartQuery } from "../../schema/cluster/kv.ts";
import {
  type ArrivalProgress,
  type ArrivalResponse,
  arrivalGo,
  arrivalRequest,
  arrivalRound,
  goOnRequest,
  type HandOverResponse,
  handOverRequest,
  moveRequest,
  type RunningGeneration,
} from "../../schema/cluster/moves.ts";
import { workerPaths } from "../../schema/cluster/protocol.ts";
import { parseOrThrow } from "../../schema/error.ts";
import { type GenerationId, generationId } from "../../schema/ids.ts";
import type { GenerationRegistry } from "../generations/registry.ts";
import type { Arrivals } from "../moves/arrivals.ts";
import type { Departures } from "../moves/departures.ts";
import type { Clock } from "../ports.ts";
import { eventStream } from "./event-stream.ts";
import { readBody } from "./read-body.ts";

export interface MoveRoutesOptions {
  readonly generations: Pick<GenerationRegistry, "find">;
  readonly departures: Departures;
  readonly arrivals: Arrivals;
  readonly clock: Clock;
}

export function moveRoutes({ generations, departures, arrivals, clock }: MoveRoutesOptions): Hono {
  return new Hono()
    .get(workerPaths.generations, (c) =>
      c.json({ data: departures.list() } satisfies { data: RunningGeneration[] }),
    )
    .get(`${workerPaths.generations}/:id`, (c) =>
      c.json(generations.find(idOf(c.req.param("id"))).record() satisfies GenerationRecord),
    )
    .post(`${workerPaths.generations}/:id/move`, async (c) => {
      const events = departures.start(idOf(c.req.param("id")), await readBody(c, moveRequest));
      return eventStream(events, clock, c.req.raw.signal);
    })
    .post(`${workerPaths.generations}/:id/hand-over`, async (c) => {
      const request = await readBody(c, handOverRequest);
      const response = await departures.handOver(idOf(c.req.param("id")), request);
      return c.json(response satisfies HandOverResponse);
    })
    .post(`${workerPaths.generations}/:id/go-on`, async (c) => {
      const generation_id = idOf(c.req.param("id"));
      departures.goOn(generation_id, await readBody(c, goOnRequest));
      return c.json({ generation_id, arrived: false } satisfies ArrivalResponse);
    })
    .post(workerPaths.arrivals, async (c) => {
      const request = await readBody(c, arrivalRequest);
      const takes_kv = arrivals.open(request);
      const { generation_id } = request;
      return c.json({ generation_id, arrived: false, takes_kv } satisfies ArrivalResponse);
    })
    .put(`${workerPaths.arrivals}/:id/kv`, async (c) => {
      const generation_id = idOf(c.req.param("id"));
      const part = parseOrThrow(kvPartQuery, c.req.query(), "query");
      const rows = new Uint8Array(await c.req.arrayBuffer());
      await arrivals.takeKv(generation_id, part, rows);
      return c.json({ generation_id, arrived: false } satisfies ArrivalResponse);
    })
    .post(`${workerPaths.arrivals}/:id/rounds`, async (c) => {
      const progress = await arrivals.round(idOf(c.req.param("id")), await readBody(c, arrivalRound));
      return c.json(progress satisfies ArrivalProgress);
    })
    .post(`${workerPaths.arrivals}/:id/go`, async (c) => {
      const generation_id = idOf(c.req.param("id"));
      arrivals.go(generation_id, await readBody(c, arrivalGo));
      return c.json({ generation_id, arrived: true } satisfies ArrivalResponse);
    })
    .delete(`${workerPaths.arrivals}/:id`, (c) => {
      const generation_id = idOf(c.req.param("id"));
      const of = parseOrThrow(epoch, Number(c.req.query("epoch")), "query");
      return c.json({ generation_id, arrived: arrivals.drop(generation_id, of) } satisfies ArrivalResponse);
    });
}

function idOf(text: string): GenerationId {
  return parseOrThrow(generationId, text, "id");
}
