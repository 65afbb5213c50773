/** Turns the symbol table into calls through bun:ffi. Import it under Bun only. */
import { dlopen, type FFIFunction, type FFIType, ptr } from "bun:ffi";
import { type NativeBinding, type NativeCalls, type NativeType, symbols } from "./symbols.ts";

/** Handles cross as u64: the same registers as a pointer on every 64-bit target, and a plain bigint between threads. */
const bunTypes = {
  void: "void",
  u8: "u8",
  i32: "i32",
  u32: "u32",
  u64: "u64",
  handle: "u64",
  buffer: "ptr",
  text: "cstring",
} as const satisfies Record<NativeType, keyof FFIType | string>;

/** Opens the library; throws Bun's own error when the file, a library it needs or a symbol is missing. */
export function loadBun(path: string): NativeBinding {
  const table: Record<string, FFIFunction> = {};
  for (const [name, symbol] of Object.entries(symbols)) {
    table[name] = {
      args: symbol.args.map((type) => bunTypes[type]),
      returns: bunTypes[symbol.returns],
    };
  }
  const library = dlopen(path, table);
  return {
    // The mapped type cannot follow a table built at run time; NativeCalls is derived from the same symbols.
    calls: library.symbols as unknown as NativeCalls,
    addressOf: (buffer) => BigInt(ptr(buffer)),
  };
}
