/** The row that a generation leaves behind. */
import { describe, expect, test } from "bun:test";
import { timeline } from "../../schema/api/admin.ts";
import { SllmError } from "../../schema/error.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { settle } from "../../test/support/manual-clock.ts";

describe("the record of a generation", () => {
  test("holds where it ran, its tokens and where the time went", async () => {
    const scene = new GatewayScene();
    const { model, worker } = await scene.ready();
    const response = await scene.chat(model.id);
    const id = response.headers.get("x-sllm-generation");
    const shown = await eventually("the row is written", async () => {
      const row = await (await scene.get(`/admin/v1/generations/${id}`)).json();
      return row.state === "finished" ? row : null;
    });
    const [instance] = (await scene.store.snapshot()).instances;
    expect(shown).toMatchObject({
      ...{ generation_id: id, model_id: model.id, worker_id: worker.worker_id },
      ...{ instance_id: instance?.instance_id, cold_start: true, finish_reason: "stop" },
      ...{ prompt_tokens: 5, completion_tokens: 2, error: null },
    });
    const times = timeline.parse(shown.timeline_ms);
    expect(times).toMatchObject({ process_start: 30, disk_read: 40, model_build: 20, prefill: 3 });
    expect(times.total).toBeGreaterThanOrEqual(times.queue);
  });

  test("waits for a database that is away, and is given up when the gateway ends before it is back", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.store.isAway = true;
    const response = await scene.chat(model.id);
    expect(response.status).toBe(200);
    const lines = () => scene.log.filter((l) => l.event === "generation_row_failed").length;
    await settle();
    expect(lines()).toBe(0);
    await scene.gateway.stop();
    expect(lines()).toBeGreaterThan(0);
    scene.store.isAway = false;
    const id = response.headers.get("x-sllm-generation") ?? "";
    expect(await scene.store.getGeneration(id)).toBeNull();
  });

  test("of a failure has its code", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => {
      throw new SllmError("context_length_exceeded", "too long");
    };
    await scene.chat(model.id);
    const only = { entity: "generation", limit: 1 } as const;
    const event = await eventually("written", async () => (await scene.store.listEvents(only))[0] ?? null);
    expect(event).toMatchObject({ to_state: "failed", reason: "context_length_exceeded" });
  });
});
