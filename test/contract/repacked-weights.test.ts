/** Devices whose engines repack weights: what an instance takes there is booked, compared and refused with the copy. */
import { expect, test } from "bun:test";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice, makeDeployRequest, makePlacement } from "../support/cluster-facts.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";

const settings = { context_tokens: 128, slots: 4 };
const request = makeDeployRequest();
const { model, weights } = request.manifest;
const plain = instanceMemoryBytes(model, weights.bytes, settings);
const repacked = instanceMemoryBytes(model, weights.bytes, { ...settings, repacks: true });
const worker = (memory_bytes: number, repacks: boolean) => ({
  devices: [{ ...cpuDevice(memory_bytes), repacks }],
  placements: [makePlacement({ checkpoint: request.manifest.digest, bytes_present: weights.bytes })],
});

test("an instance books its weights twice there, and once elsewhere and for a deterministic model", async () => {
  expect(repacked - plain).toBe(weights.bytes);
  for (const [repacks, deterministic] of [
    [true, false],
    [false, false],
    [true, true],
  ] as const) {
    const scene = new GatewayScene();
    const deployed = await scene.deploy({ ...request, settings: { slots: 4, deterministic } });
    await scene.register([deployed], worker(2 ** 40, repacks));
    expect((await scene.chat(deployed.id)).status).toBe(200);
    const [instance] = (await scene.store.snapshot()).instances;
    const needed = instanceMemoryBytes(model, weights.bytes, { ...settings, repacks, deterministic });
    expect(instance?.memory_bytes).toBe(needed);
    expect(needed - instanceMemoryBytes(model, weights.bytes, { ...settings, deterministic })).toBe(
      repacks && !deterministic ? weights.bytes : 0,
    );
  }
});

test("a device with room for the weights but not for their copy is no place for the model", async () => {
  const scene = new GatewayScene();
  const deployed = await scene.deploy(request);
  await scene.register([deployed], worker(repacked - 1, true));
  expect(await readError(await scene.chat(deployed.id))).toMatchObject({
    status: 503,
    code: "model_too_large",
  });
  const again = { ...request, id: "again" };
  expect(await readError(await scene.post("/admin/v1/models", again))).toMatchObject({
    status: 422,
    code: "deployment_too_large",
    message: expect.stringContaining(String(repacked)),
  });
  await scene.register([deployed], { ...worker(plain, false), url: "http://127.0.0.1:4001" });
  expect((await scene.chat(deployed.id)).status).toBe(200);
});
