/** How many instances a model has, as the admin API takes and shows it. */
import { expect, test } from "bun:test";
import { deployedModel } from "../../schema/api/admin.ts";
import { makeDeployRequest } from "../support/cluster-facts.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";

test("a deployment takes bounds and targets of its instances, with defaults, and refuses bounds that contradict", async () => {
  const scene = new GatewayScene();
  const ask = (settings: object) => scene.post("/admin/v1/models", { ...makeDeployRequest(), settings });
  const plain = deployedModel.parse(await (await ask({})).json());
  expect(plain).toMatchObject({ min_instances: 0, max_instances: null, target_concurrency: null });
  expect(plain).toMatchObject({ queue_delay_ms: 5_000, preload: false });
  const own = {
    min_instances: 1,
    max_instances: 3,
    target_concurrency: 2,
    queue_delay_ms: 0,
    preload: true,
  };
  expect(deployedModel.parse(await (await ask(own)).json())).toMatchObject(own);
  const error = { status: 400, code: "invalid_request", param: "settings.min_instances" };
  expect(await readError(await ask({ min_instances: 2, max_instances: 1 }))).toMatchObject(error);
});
