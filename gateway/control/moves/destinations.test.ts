/** Where a stream may go, asked for through the admin API: workers are scripted and refuse to send it. */
import { expect, test } from "bun:test";
import type { RunningGeneration } from "../../../schema/cluster/moves.ts";
import { makePlacement, newDigest, newGenerationId } from "../../../test/support/cluster-facts.ts";
import { GatewayScene } from "../../../test/support/gateway-scene.ts";

/** A stream that an adapter answers; two other workers of which one has the adapter. */
async function adapterStream() {
  const scene = new GatewayScene();
  const { model, worker, instance_id } = await scene.warm();
  const adapter = newDigest();
  const placements = [
    makePlacement({ checkpoint: model.manifest.digest, bytes_present: model.manifest.weights.bytes }),
    makePlacement({ checkpoint: adapter }),
  ];
  const without = await scene.register([model]);
  const having = await scene.register([model], { placements });
  const stream: RunningGeneration = {
    ...{ generation_id: newGenerationId(), instance_id, epoch: 1, owner: null, adapter },
    ...{ prompt_tokens: 3, completion_tokens: 1, is_moving: false },
  };
  scene.workers.running.set(worker.worker_id, [stream]);
  const move = async (worker_id?: string) => {
    const body = worker_id === undefined ? {} : { worker_id };
    const response = await scene.post(`/admin/v1/generations/${stream.generation_id}/move`, body);
    return { status: response.status, body: await response.json() };
  };
  return { scene, move, stream, source: worker, without, having };
}

test("a stream that an adapter answers goes to a worker that has the adapter", async () => {
  const { move, having } = await adapterStream();
  expect(await move()).toMatchObject({ status: 202, body: { to_worker_id: having.worker_id } });
});

test("a worker without the stream's adapter is refused by name, and nothing is begun", async () => {
  const { scene, move, without, source } = await adapterStream();
  const { body } = await move(without.worker_id);
  expect(body.error).toMatchObject({ code: "checkpoint_unavailable" });
  expect(body.error.message).toContain("adapter");
  expect((await move(source.worker_id)).body.error.code).toBe("state_conflict");
  expect((await (await scene.get("/admin/v1/migrations")).json()).data).toEqual([]);
});

test("a worker that cannot hold the model is refused with what it lacks", async () => {
  const { scene, move, stream, source } = await adapterStream();
  const { adapter: _, ...plain } = stream;
  scene.workers.running.set(source.worker_id, [plain]);
  const { worker_id } = await scene.register([]);
  const { body } = await move(worker_id);
  expect(body.error.message).toBe(
    `The worker '${worker_id}' cannot take the stream in (its worker does not have the checkpoint).`,
  );
});
