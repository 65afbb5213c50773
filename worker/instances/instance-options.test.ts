import { expect, test } from "bun:test";
import { checkpoint, manifest } from "../../test/support/instance-scene.ts";
import { skeletonOf } from "./instance-options.ts";

const request = {
  protocol_version: 1,
  instance_id: "i-00000000000000aa",
  model_id: "m",
  checkpoint: manifest.digest,
  device_id: "cpu",
  context_tokens: 64,
  slots: 2,
} as const;
const facts = {
  request,
  checkpoint,
  engine: "llama",
  threads: 3,
  placement: { engine_devices: "", computesOnHostCopy: true, repacks: false },
  prefill_tokens: 256,
  engine_queue: 8,
} as const;

test("weights are repacked where the device says so, but never for answers that must be equal to the last bit", () => {
  expect(skeletonOf(facts).repacked).toBeUndefined();
  const repacking = { ...facts, placement: { ...facts.placement, repacks: true } };
  expect(skeletonOf(repacking).repacked).toBe(true);
  const exact = { ...repacking, request: { ...request, deterministic: true } };
  expect(skeletonOf(exact).repacked).toBeUndefined();
});
