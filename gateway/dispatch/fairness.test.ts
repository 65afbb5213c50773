/** Requests of several tenants and priorities at one busy model, and requests with deadlines; times are the test's own. */
import { describe, expect, test } from "bun:test";
import { queueView } from "../../schema/api/admin.ts";
import { errorBody } from "../../schema/error.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice, makeManifest } from "../../test/support/cluster-facts.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { gate, say } from "../../test/support/scripted-worker.ts";

const manifest = makeManifest();
const memory = instanceMemoryBytes(manifest.model, manifest.weights.bytes, { context_tokens: 128, slots: 1 });
const tokenOf = (tenant: string) => `key-of-the-tenant-${tenant}`;
const api_keys = ["a:", "b:", "vip/high:", "batch/low:"].map(
  (own) => own + tokenOf(own.split(/[/:]/)[0] ?? ""),
);

/** One model with one slot, and room for nothing else. Requests wait until the one before them is told to end. */
async function busyScene(config: { waiting_per_tenant?: number } = {}) {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { api_keys, ...config } });
  const model = await scene.deploy({ settings: { slots: 1 } });
  await scene.register([model], { devices: [cpuDevice(1.5 * memory)] });
  const gates: ReturnType<typeof gate>[] = [];
  scene.workers.onGenerate = async function* () {
    const end = gate();
    gates.push(end);
    await end.passed;
    yield* say(["ok"]);
  };
  const served: string[] = [];
  const ask = (tenant: string, headers: Record<string, string> = {}, name = tenant) => {
    const authorization = `Bearer ${tokenOf(tenant)}`;
    const body = { model: model.id, messages: [{ role: "user", content: name }] };
    const answer = scene.post("/v1/chat/completions", body, { authorization, ...headers });
    void answer.then(({ status }) => {
      if (status === 200) served.push(name);
    });
    return answer;
  };
  const queue = async () => queueView.parse(await (await scene.get("/admin/v1/queue")).json()).data;
  /** Ends the running answer and waits for the next to run, so often. */
  const next = async (times: number) => {
    for (let i = 0; i < times; i++) {
      const running = gates.length;
      gates.at(-1)?.open();
      await eventually("the next runs", () => gates.length > running);
    }
  };
  const holder = ask("a", {}, "holder");
  await eventually("it runs", () => gates.length === 1);
  return { clock, scene, gates, ask, queue, served, next, holder };
}

async function codeOf(response: Response): Promise<string> {
  return errorBody.parse(await response.json()).error.code;
}

describe("tenants", () => {
  test("a tenant with one request does not wait behind the flood of another", async () => {
    const { ask, queue, served, next, gates } = await busyScene();
    const flood = Array.from({ length: 6 }, () => ask("a"));
    await eventually("the flood waits", async () => (await queue()).length === 6);
    const other = ask("b");
    await eventually("b waits", async () => (await queue()).length === 7);
    expect((await queue()).find((w) => w.tenant === "b")?.position).toBeLessThanOrEqual(2);
    await next(2);
    gates.at(-1)?.open();
    expect((await other).status).toBe(200);
    expect(served.indexOf("b")).toBeLessThanOrEqual(2);
    // The holder, the flood and b; whoever comes after b may run by now.
    await next(8 - gates.length);
    gates.at(-1)?.open();
    for (const answer of await Promise.all(flood)) expect(answer.status).toBe(200);
  });

  test("a tenant beyond its bound is refused with 429 while others come in", async () => {
    const { ask, queue, next, gates } = await busyScene({ waiting_per_tenant: 2 });
    const waiting = [ask("a"), ask("a")];
    await eventually("two wait", async () => (await queue()).length === 2);
    const refused = await ask("a");
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await codeOf(refused)).toBe("too_many_waiting");
    waiting.push(ask("b"));
    await next(3);
    gates.at(-1)?.open();
    for (const answer of await Promise.all(waiting)) expect(answer.status).toBe(200);
  });
});

describe("priorities", () => {
  test("an urgent request goes first, one that can wait goes last", async () => {
    const { ask, queue, served, next, gates, holder } = await busyScene();
    const answers = [holder, ask("batch"), ask("a", { "x-sllm-priority": "low" }, "later"), ask("a")];
    await eventually("they wait", async () => (await queue()).length === 3);
    answers.push(ask("vip", { "x-sllm-priority": "high" }));
    await eventually("it waits", async () => (await queue()).length === 4);
    await next(4);
    gates.at(-1)?.open();
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
    expect(served.slice(0, 3)).toEqual(["holder", "vip", "a"]);
    expect(served.slice(3).toSorted()).toEqual(["batch", "later"]);
  });

  test("a priority beyond the key's bound is refused by name, an unknown one too", async () => {
    const { ask } = await busyScene();
    const above = await ask("a", { "x-sllm-priority": "high" });
    expect(above.status).toBe(403);
    expect(await codeOf(above)).toBe("priority_not_allowed");
    const unknown = await ask("a", { "x-sllm-priority": "urgent" });
    expect(unknown.status).toBe(400);
    expect(errorBody.parse(await unknown.json()).error.param).toBe("x-sllm-priority");
  });
});

describe("deadlines", () => {
  test("a request that is expected to be served too late is refused at once, with both times", async () => {
    const { ask, queue } = await busyScene();
    void ask("a");
    await eventually("one waits", async () => (await queue()).length === 1);
    const refused = await ask("b", { "x-sllm-deadline-ms": "500" });
    expect(refused.status).toBe(503);
    const { error } = errorBody.parse(await refused.json());
    expect(error.code).toBe("deadline_unreachable");
    expect(error.message).toMatch(/may wait 500 ms and would wait about \d+ ms/);
    expect(await queue()).toHaveLength(1);
  });

  test("one that waits past its deadline is dropped, and the others go on", async () => {
    const { ask, queue, clock, gates, next } = await busyScene();
    const [late, patient] = [ask("a", { "x-sllm-deadline-ms": "3000" }), ask("b")];
    await eventually("they wait", async () => (await queue()).length === 2);
    expect((await queue())[0]).toMatchObject({ tenant: "a", remaining_ms: 3_000 });
    await clock.advance(3_001);
    const dropped = await late;
    expect(dropped.status).toBe(504);
    expect(await codeOf(dropped)).toBe("deadline_exceeded");
    await next(1);
    gates.at(-1)?.open();
    expect((await patient).status).toBe(200);
  });
});
