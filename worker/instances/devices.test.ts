import { expect, test } from "bun:test";
import { Devices } from "./devices.ts";

const cpu = { device_id: "cpu", kind: "cpu", memory_bytes: 100, engine_name: null } as const;
const large = { device_id: "cuda0", kind: "cuda", memory_bytes: 300, engine_name: "CUDA0" } as const;
const small = { device_id: "cuda1", kind: "cuda", memory_bytes: 100, engine_name: "CUDA1" } as const;
const first = "i-0000000000000001";
const second = "i-0000000000000002";

test("the processors compute on the host copy, other devices need it only to load", () => {
  expect(new Devices([cpu]).place("cpu")).toMatchObject({ engine_devices: "", computesOnHostCopy: true });
  expect(new Devices([large]).place("cuda0")).toMatchObject({
    engine_devices: "CUDA0",
    computesOnHostCopy: false,
  });
});

test("a model on several devices is shared out in proportion to their memory", () => {
  const devices = new Devices([large, small]);
  const place = devices.place("cuda0+cuda1");
  expect(place.engine_devices).toBe("CUDA0=300,CUDA1=100");
  place.book(first, 200);
  expect([devices.freeBytes("cuda0"), devices.freeBytes("cuda1")]).toEqual([150, 50]);
  place.rebook(first, 40);
  expect([devices.freeBytes("cuda0"), devices.freeBytes("cuda1")]).toEqual([270, 90]);
  place.release(first);
  expect([devices.freeBytes("cuda0"), devices.freeBytes("cuda1")]).toEqual([300, 100]);
});

test("what one of the devices has no room for is booked on none", () => {
  const devices = new Devices([large, small]);
  devices.place("cuda1").book(first, 60);
  const place = devices.place("cuda0+cuda1");
  expect(() => place.book(second, 200)).toThrow("MiB are free");
  expect(devices.freeBytes("cuda0")).toBe(300);
  place.book(second, 40);
  expect(() => place.rebook(second, 200)).toThrow("MiB are free");
  expect([devices.freeBytes("cuda0"), devices.freeBytes("cuda1")]).toEqual([270, 30]);
});

test.each(["cuda2", "cuda0+cuda2", "cuda0+cuda0", "cpu+cuda0", "", "+"])("there is no device %p", (id) => {
  expect(() => new Devices([cpu, large, small]).place(id)).toThrow("There is no device");
});

test("the gateway is told id, kind and memory alone", () => {
  expect(new Devices([large]).reports()).toEqual([{ device_id: "cuda0", kind: "cuda", memory_bytes: 300 }]);
});
