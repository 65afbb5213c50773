import { expect, test } from "bun:test";
import { engineParams, event, request } from "./sllm-structs.ts";
import { struct } from "./struct.ts";

test("members lie one after the other at their natural alignment", () => {
  expect(event.bytes).toBe(64);
  expect(event.fields.find((f) => f.name === "queue_ms")?.offset).toBe(40);
  expect(engineParams.bytes).toBe(88);
  expect(request.fields.find((f) => f.name === "stop")?.offset).toBe(80);
});

test("what is encoded is decoded again, and struct_size is filled in", () => {
  const encoded = request.encode({
    request: 2n ** 63n,
    temperature: 0.5,
    n_stop: 3,
    stop: 0xffff_ffff_f000n,
  });
  const decoded = request.decode(new DataView(encoded.buffer));
  expect(decoded).toMatchObject({
    struct_size: request.bytes,
    request: 2n ** 63n,
    temperature: 0.5,
    n_stop: 3,
    stop: 0xffff_ffff_f000n,
    top_p: 0,
  });
});

test("text ends at its first NUL, or at the end of the array without one", () => {
  const name = struct("name", { text: "char[4]" });
  const read = (bytes: number[]) => name.decode(new DataView(new Uint8Array(bytes).buffer)).text;
  expect(read([97, 98, 0, 99])).toBe("ab");
  expect(read([97, 98, 99, 100])).toBe("abcd");
});

test("a struct that would need hidden padding is refused", () => {
  expect(() => struct("inner", { a: "u32", b: "u64" })).toThrow("inner.b would need padding");
  expect(() => struct("end", { a: "u64", b: "u32" })).toThrow("end would need padding");
});

test("a value of the wrong kind is refused by name", () => {
  const pair = struct("pair", { count: "u64" });
  const values: Record<string, unknown> = { count: 3 };
  expect(() => pair.encode(values as { count: bigint })).toThrow("count is a u64");
});
