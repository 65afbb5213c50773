import { beforeEach, expect, test } from "bun:test";
import type { HeartbeatResponse, InstanceReport } from "../../schema/cluster/membership.ts";
import { SllmError, toErrorBody } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { backOffMs } from "./back-off.ts";
import { GatewayLink, type Report } from "./link.ts";

interface Call {
  readonly url: string;
  readonly body: { sequence?: number; state?: string; url?: string; again?: boolean };
  readonly authorization: string | null;
}

const idle = { known: true, release: [], deployed: [] };
const instance: InstanceReport = {
  instance_id: "i-0000000000000001",
  model_id: "m",
  state: "ready",
  active: 0,
  queued: 0,
  error: null,
};

let clock: ManualClock;
let calls: Call[];
let released: string[];
let deployed: string[];
let reported: Report[];
let superseded: number;
let answerTo: (call: Call) => Response | Promise<Response>;
let heartbeatAnswer: HeartbeatResponse;

beforeEach(() => {
  clock = new ManualClock();
  calls = [];
  released = [];
  deployed = [];
  reported = [];
  superseded = 0;
  heartbeatAnswer = idle;
  answerTo = (call) =>
    Response.json(call.url.endsWith("register") ? { heartbeat_ms: 1_000 } : heartbeatAnswer);
});

function newLink(gateways = ["http://one:1"]): GatewayLink {
  return new GatewayLink({
    gateways,
    cluster_token: "the-token",
    identity: { url: "http://worker:1", version: "0", devices: [] },
    report: async () => ({
      protocol_version: 1,
      worker_id: "w-0000000000000001",
      incarnation: "0".repeat(16),
      state: "ready",
      placements: [],
      instances: [instance],
      links: [],
      problems: [],
    }),
    onRelease: (ids) => released.push(...ids),
    onDeployed: (checkpoints) => deployed.push(...checkpoints),
    onReported: (report) => reported.push(report),
    onSuperseded: () => {
      superseded += 1;
    },
    fetch: async (url, init) => {
      const call = {
        url,
        body: JSON.parse(String(init.body)),
        authorization: new Headers(init.headers).get("authorization"),
      };
      calls.push(call);
      return answerTo(call);
    },
    clock,
    random: () => 0.5,
    log: { info: () => {}, warn: () => {}, error: () => {} },
  });
}

const paths = () => calls.map((call) => new URL(call.url).pathname.split("/").at(-1));

test("it registers once and then heartbeats in the gateway's rhythm with growing numbers", async () => {
  const link = newLink();
  link.start();
  await clock.advance(3_000);
  expect(paths()).toEqual(["register", "heartbeat", "heartbeat", "heartbeat"]);
  expect(calls[0]?.body.url).toBe("http://worker:1");
  expect(calls.slice(1).map((call) => call.body.sequence)).toEqual([0, 1, 2]);
  expect(new Set(calls.map((call) => call.authorization))).toEqual(new Set(["Bearer the-token"]));
  expect(link.gateway).toBe("http://one:1");
});

test("a change is told at once, many changes in one heartbeat", async () => {
  const link = newLink();
  link.start();
  await clock.advance(0);
  for (let i = 0; i < 10; i++) link.notify();
  await settle();
  expect(paths()).toEqual(["register", "heartbeat"]);
});

test("a change during a heartbeat is told right after it", async () => {
  const link = newLink();
  link.start();
  await clock.advance(0);
  const slow = Promise.withResolvers<Response>();
  answerTo = () => slow.promise;
  link.notify();
  await settle();
  link.notify();
  answerTo = () => Response.json(idle);
  slow.resolve(Response.json(idle));
  await settle();
  expect(paths()).toEqual(["register", "heartbeat", "heartbeat"]);
});

test("a gateway that does not know it any more gets a registration at once", async () => {
  const link = newLink();
  link.start();
  await clock.advance(0);
  heartbeatAnswer = { known: false, release: [], deployed: [] };
  await clock.advance(1_000);
  expect(paths()).toEqual(["register", "heartbeat", "register"]);
  expect(reported).toHaveLength(2);
});

test("a later registration says that it comes again, with whichever gateway", async () => {
  const link = newLink(["http://one:1", "http://two:2"]);
  link.start();
  await clock.advance(0);
  answerTo = (call) => {
    if (call.url.startsWith("http://one")) throw new TypeError("connection refused");
    return Response.json(call.url.endsWith("register") ? { heartbeat_ms: 1_000 } : idle);
  };
  await clock.advance(2_000);
  expect(link.gateway).toBe("http://two:2");
  const registrations = calls.filter((call) => call.url.endsWith("register"));
  expect(registrations.map((call) => call.body.again ?? false)).toEqual([false, true]);
});

test("once another process has taken its place it tells its owner, and says nothing more", async () => {
  const link = newLink();
  link.start();
  await clock.advance(0);
  heartbeatAnswer = { known: false, release: [], deployed: [] };
  const refusal = toErrorBody(new SllmError("stale_epoch", "Another process has taken the place."));
  answerTo = (call) =>
    call.url.endsWith("register") ? Response.json(refusal, { status: 409 }) : Response.json(heartbeatAnswer);
  await clock.advance(1_000);
  expect(superseded).toBe(1);
  await clock.advance(60_000);
  await link.stop();
  expect(paths()).toEqual(["register", "heartbeat", "register"]);
});

test("gateways that are back wait longer for it than it may need", () => {
  expect(limits.control_call_ms + backOffMs(1_000, 0.999)).toBeLessThan(limits.worker_return_ms);
});

test("instances that the cluster has let go are handed to the owner", async () => {
  const link = newLink();
  link.start();
  heartbeatAnswer = { known: true, release: [instance.instance_id], deployed: [] };
  await clock.advance(1_000);
  expect(released).toEqual([instance.instance_id]);
});

test("a silent gateway is tried again with growing pauses", async () => {
  answerTo = () => {
    throw new TypeError("connection refused");
  };
  const link = newLink();
  link.start();
  await clock.advance(149);
  expect(calls).toHaveLength(1);
  await clock.advance(1 + 300 + 600);
  expect(calls).toHaveLength(4);
  expect(link.gateway).toBeNull();
});

test("when one gateway falls silent the next of the list is registered with", async () => {
  answerTo = (call) => {
    if (call.url.startsWith("http://one")) return new Response("no", { status: 503 });
    return Response.json(call.url.endsWith("register") ? { heartbeat_ms: 1_000 } : idle);
  };
  const link = newLink(["http://one:1", "http://two:2"]);
  link.start();
  await clock.advance(200);
  expect(link.gateway).toBe("http://two:2");
  await clock.advance(1_000);
  expect(calls.map((call) => new URL(call.url).host)).toEqual(["one:1", "two:2", "two:2"]);
});

test("an answer that is not of the protocol counts as silence", async () => {
  answerTo = () => Response.json({ hello: "world" });
  const link = newLink();
  link.start();
  await clock.advance(0);
  expect(link.gateway).toBeNull();
});

test("stopping says goodbye once and ends the rhythm", async () => {
  const link = newLink();
  link.start();
  await clock.advance(0);
  await link.stop();
  expect(paths()).toEqual(["register", "heartbeat"]);
  await clock.advance(10_000);
  expect(calls).toHaveLength(2);
});

test("without a list of gateways it stays alone", async () => {
  const link = newLink([]);
  link.start();
  await clock.advance(10_000);
  await link.stop();
  expect(calls).toEqual([]);
});

test("pauses double up to their bound and are spread over their upper half", () => {
  expect([1, 2, 3, 4].map((n) => backOffMs(n, 0))).toEqual([100, 200, 400, 800]);
  expect(backOffMs(50, 0)).toBe(1_000);
  expect(backOffMs(50, 0.999)).toBeLessThan(2_000);
});
