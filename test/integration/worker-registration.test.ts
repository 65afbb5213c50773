/** What a worker process says to a gateway, held to the schemas of the protocol on the receiving side. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  type HeartbeatRequest,
  heartbeatRequest,
  type RegisterRequest,
  registerRequest,
} from "../../schema/cluster/membership.ts";
import { gatewayPaths } from "../../schema/cluster/protocol.ts";
import { eventually } from "../support/eventually.ts";
import { openNativeLibrary } from "../support/native.ts";
import { writeTinyCheckpoint } from "../support/tiny-checkpoint.ts";
import { clusterToken, WorkerHost } from "../support/worker-host.ts";

const registrations: RegisterRequest[] = [];
const heartbeats: HeartbeatRequest[] = [];
let release: string[] = [];
let known = true;

/** Takes reports in as a gateway does, and remembers them. */
const gateway = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    if (request.headers.get("authorization") !== `Bearer ${clusterToken}`)
      return new Response(null, { status: 401 });
    const body: unknown = await request.json();
    if (new URL(request.url).pathname === gatewayPaths.register) {
      registrations.push(registerRequest.parse(body));
      return Response.json({ heartbeat_ms: 200 });
    }
    heartbeats.push(heartbeatRequest.parse(body));
    return Response.json({ known, release, deployed: [] });
  },
});

let host: WorkerHost;
let digest: string;
beforeAll(async () => {
  const library = await openNativeLibrary();
  host = await WorkerHost.start({
    echo_token_us: 0,
    variables: { SLLM_WORKER_GATEWAYS: `http://127.0.0.1:1,http://127.0.0.1:${gateway.port}` },
  });
  ({ digest } = writeTinyCheckpoint(host.store, { xxh3: (chunk) => library.digestXxh3(chunk) }));
}, 60_000);
afterAll(async () => {
  await host?.close();
  await gateway.stop(true);
}, 60_000);

test("it registers with the first gateway that answers, with its device and a reachable address", async () => {
  const registration = await eventually("it registers", () => registrations[0]);
  expect(registration.url).toBe(host.process.url);
  expect(registration.devices).toMatchObject([{ device_id: "cpu", kind: "cpu" }]);
  expect(registration.devices[0]?.memory_bytes).toBeGreaterThan(0);
  expect((await host.status()).gateway).toBe(`http://127.0.0.1:${gateway.port}`);
});

test("a checkpoint that appears on disk and its copy in memory are reported as placements", async () => {
  await eventually("the disk tier is reported", () =>
    heartbeats.at(-1)?.placements.some((p) => p.checkpoint === digest && p.tier === "disk"),
  );
  const instance_id = await host.loadReady(digest);
  await eventually("instance and host tier are reported", () => {
    const last = heartbeats.at(-1);
    const isReady = last?.instances.some((i) => i.instance_id === instance_id && i.state === "ready");
    return isReady && last?.placements.some((p) => p.tier === "host" && p.state === "present");
  });
  const sequences = heartbeats.map((heartbeat) => heartbeat.sequence);
  expect(sequences).toEqual(sequences.toSorted((a, b) => a - b));
});

test("an instance that the cluster has let go is stopped, reported as gone once it is, and then forgotten", async () => {
  const instance_id = await host.loadReady(digest);
  release = [instance_id];
  await eventually("it is reported as gone", () =>
    heartbeats.some((h) => h.instances.some((i) => i.instance_id === instance_id && i.state === "gone")),
  );
  release = [];
  await eventually("it is reported no more", () =>
    heartbeats.at(-1)?.instances.every((i) => i.instance_id !== instance_id),
  );
});

test("a gateway that has forgotten it gets a new registration of the same incarnation", async () => {
  const before = registrations.length;
  known = false;
  await eventually("it registers again", () => registrations.length > before);
  known = true;
  expect(registrations.at(-1)?.incarnation).toBe(registrations[0]?.incarnation);
});

test("it says goodbye", async () => {
  expect(await host.process.stop()).toBe(0);
  expect(heartbeats.at(-1)?.state).toBe("gone");
  expect(heartbeats.at(-1)?.instances.every((i) => i.state === "gone")).toBe(true);
});
