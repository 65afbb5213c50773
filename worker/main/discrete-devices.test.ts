import { describe, expect, test } from "bun:test";
import { type DeviceProbe, type DeviceWishes, findDevices } from "./discrete-devices.ts";

const wishes: DeviceWishes = {
  choice: "auto",
  device_memory_bytes: undefined,
  engine_libraries: undefined,
  cpu_libraries: "/cpu",
};
const twoCards = JSON.stringify({
  devices: [
    { name: "CUDA0", description: "card", backend: "CUDA", memory_bytes: 1000, free_bytes: 900 },
    { name: "CUDA1", description: "card", backend: "CUDA", memory_bytes: 500, free_bytes: 500 },
    { name: "Vulkan0", description: "card", backend: "Vulkan", memory_bytes: 1000, free_bytes: 900 },
  ],
});

function probe(change: { present?: RegExp; list?: string }): DeviceProbe {
  return {
    exists: (file) => change.present?.test(file) ?? false,
    list: async () => {
      if (change.list === undefined) throw new Error("the devices cannot be listed: no driver");
      return change.list;
    },
  };
}

describe("the automatic choice", () => {
  test("is the processors where no NVIDIA device is, whatever else could compute", async () => {
    const found = await findDevices(wishes, probe({ present: /libllama/, list: twoCards }));
    expect(found).toEqual({ kind: null, engine_libraries: "/cpu", devices: [], unused: null });
  });

  test("is CUDA where an NVIDIA device and its libraries are, with nine tenths of each device's memory", async () => {
    const found = await findDevices(wishes, probe({ present: /nvidiactl|libllama\.cuda/, list: twoCards }));
    expect(found).toMatchObject({ kind: "cuda", unused: null });
    expect(found.engine_libraries).toEndWith("linux-x64-cuda");
    expect(found.devices).toEqual([
      { device_id: "cuda0", kind: "cuda", memory_bytes: 900, engine_name: "CUDA0" },
      { device_id: "cuda1", kind: "cuda", memory_bytes: 450, engine_name: "CUDA1" },
    ]);
  });

  test("falls back to the processors and says which command fetches the libraries", async () => {
    const found = await findDevices(wishes, probe({ present: /nvidiactl/ }));
    expect(found).toMatchObject({ kind: null, engine_libraries: "/cpu" });
    expect(found.unused).toContain("node deploy/scripts/engines.mjs cuda");
  });

  test("falls back to the processors when the driver does not answer", async () => {
    const found = await findDevices(wishes, probe({ present: /nvidiactl|libllama/ }));
    expect(found).toMatchObject({ kind: null, unused: "the devices cannot be listed: no driver" });
  });
});

describe("a kind that was asked for", () => {
  test("is refused with what to do when its libraries or its devices are not there", async () => {
    const vulkan: DeviceWishes = { ...wishes, choice: "vulkan" };
    await expect(findDevices(vulkan, probe({}))).rejects.toThrow("node deploy/scripts/engines.mjs vulkan");
    const none = probe({ present: /libllama/, list: JSON.stringify({ devices: [] }) });
    await expect(findDevices(vulkan, none)).rejects.toThrow("find no such device");
  });

  test("uses the libraries and the memory that were set", async () => {
    const set: DeviceWishes = {
      ...wishes,
      choice: "vulkan",
      engine_libraries: "/mine",
      device_memory_bytes: 7,
    };
    expect(await findDevices(set, probe({ list: twoCards }))).toEqual({
      kind: "vulkan",
      engine_libraries: "/mine",
      devices: [{ device_id: "vulkan0", kind: "vulkan", memory_bytes: 7, engine_name: "Vulkan0" }],
      unused: null,
    });
  });

  test("asks nothing of the host when it is the processors", async () => {
    const refusing: DeviceProbe = {
      exists: () => {
        throw new Error("asked");
      },
      list: () => Promise.reject(new Error("asked")),
    };
    expect(await findDevices({ ...wishes, choice: "cpu" }, refusing)).toMatchObject({ kind: null });
  });
});
