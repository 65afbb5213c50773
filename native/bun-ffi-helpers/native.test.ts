import { expect, test } from "bun:test";
import { cString } from "./call-memory.ts";
import { NativeLibrary, NativeLoadError, SllmNativeError, toSafeNumber } from "./native.ts";
import { abiVersion, failureName } from "./sllm-structs.ts";
import type { NativeBinding, NativeCalls } from "./symbols.ts";

/** A binding of which only the named calls exist. */
function bindingWith(calls: Partial<NativeCalls>): NativeBinding {
  return { calls: calls as NativeCalls, addressOf: () => 1n };
}

test("a library that cannot be opened is named together with the runtime's reason", () => {
  const open = () =>
    NativeLibrary.open("/nowhere/libsllm.so", () => {
      throw new Error("libstdc++.so.6: cannot open shared object file");
    });
  expect(open).toThrow(NativeLoadError);
  expect(open).toThrow("/nowhere/libsllm.so cannot be used: libstdc++.so.6: cannot open");
});

test("another major ABI version or an older minor one is refused before any other call", () => {
  for (const found of [0x0002_0000, abiVersion - 1]) {
    const open = () => NativeLibrary.open("lib", () => bindingWith({ sllm_abi_version: () => found }));
    expect(open).toThrow("ABI version");
  }
  const newer = bindingWith({ sllm_abi_version: () => abiVersion + 1 });
  expect(NativeLibrary.open("lib", () => newer).abiVersion()).toBe(abiVersion + 1);
});

test("a failed call throws its status name and the library's text", () => {
  const text = new TextEncoder().encode("weights.bin: bad chunk");
  const binding = bindingWith({
    sllm_abi_version: () => abiVersion,
    sllm_store_create: () => -11,
    sllm_last_error: (out) => {
      if (out instanceof Uint8Array) out.set(text);
      return BigInt(text.length);
    },
  });
  const library = NativeLibrary.open("lib", () => binding);
  try {
    library.createStore();
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(SllmNativeError);
    expect(error).toMatchObject({
      call: "sllm_store_create",
      status_name: "SLLM_E_CORRUPT",
      message: "weights.bin: bad chunk",
    });
  }
});

test("an unknown status counts as an internal failure", () => {
  expect(failureName(-12345)).toBe("SLLM_E_INTERNAL");
});

test("64-bit numbers beyond 2^53 are refused instead of rounded", () => {
  expect(toSafeNumber(2n ** 53n - 1n, "n")).toBe(Number.MAX_SAFE_INTEGER);
  expect(() => toSafeNumber(2n ** 53n, "bytes_done")).toThrow("bytes_done");
});

test("text with a NUL is refused: the library would see it cut", () => {
  expect(cString("ab")).toEqual(new Uint8Array([97, 98, 0]));
  expect(() => cString("a\0b")).toThrow("NUL");
});
