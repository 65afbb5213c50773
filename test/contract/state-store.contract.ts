/** What every state store promises to the gateway, as one suite that is run against each of them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { adapterContract } from "./state-store/adapters.contract.ts";
import { concurrencyContract } from "./state-store/concurrency.contract.ts";
import { estimateContract } from "./state-store/estimates.contract.ts";
import {
  created,
  deploy,
  type StateStoreFixture,
  startInstance,
  wantedInstance,
} from "./state-store/fixture.ts";
import { generationContract } from "./state-store/generations.contract.ts";
import { instanceContract } from "./state-store/instances.contract.ts";
import { leaseContract } from "./state-store/leases.contract.ts";
import { modelContract } from "./state-store/models.contract.ts";
import { retentionContract } from "./state-store/retention.contract.ts";
import { streamContract } from "./state-store/streams.contract.ts";
import { workerContract } from "./state-store/workers.contract.ts";

/** Runs the suite against the store that `open` makes; it is closed at the end. Only a durable one is reopened. */
export function stateStoreContract(
  name: string,
  { durable, open }: { durable: boolean; open: () => Promise<StateStoreFixture> },
): void {
  describe(`state store on ${name}`, () => {
    let opened: StateStoreFixture | undefined;
    const fixture = () => {
      if (opened === undefined) throw new Error("the store did not open");
      return opened;
    };
    beforeAll(async () => {
      opened = await open();
    }, 60_000);
    afterAll(async () => {
      await opened?.close();
    });

    test("answers a ping", async () => {
      await fixture().store.ping();
    });
    describe("models", () => modelContract(fixture));
    describe("adapters", () => adapterContract(fixture));
    describe("workers", () => workerContract(fixture));
    describe("leases", () => leaseContract(fixture));
    describe("instances", () => instanceContract(fixture));
    describe("generations", () => generationContract(fixture));
    describe("streams", () => streamContract(fixture));
    describe("estimates", () => estimateContract(fixture));
    describe("retention", () => retentionContract(fixture));
    describe("under concurrency", () => concurrencyContract(fixture));

    if (!durable) return;
    test("nothing is forgotten over a restart", async () => {
      const { store, reopen } = fixture();
      if (reopen === undefined) throw new Error("a durable store can be reopened");
      const { model, worker, instance } = await startInstance(store);
      const before = await store.snapshot();
      const events = await store.listEvents({ limit: 1_000 });
      const reopened = await reopen();
      expect(await reopened.snapshot()).toEqual(before);
      expect(await reopened.listEvents({ limit: 1_000 })).toEqual(events);
      expect((await reopened.getModel(model.model_id))?.model).toEqual(model);
      await reopened.moveInstance({
        instance_id: instance.instance_id,
        from: ["loading"],
        to: "gone",
        reason: "test",
      });
      created(await reopened.createInstance(wantedInstance(model, worker)));
      await deploy(reopened);
    });
  });
}
