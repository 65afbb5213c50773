/** Turns the symbol table into calls through Deno.dlopen. Import it under Deno only (it needs --allow-ffi). */
import { type NativeBinding, type NativeCalls, type NativeType, symbols } from "./symbols.ts";

/** The part of Deno's API that is used here; the project's types are those of Bun. */
interface DenoFfi {
  dlopen(
    path: string,
    symbols: Record<string, { parameters: string[]; result: string }>,
  ): { symbols: Record<string, (...args: unknown[]) => unknown> };
  readonly UnsafePointer: {
    of(buffer: ArrayBufferView): object | null;
    value(pointer: object | null): bigint;
  };
  readonly UnsafePointerView: { getCString(pointer: object): string };
}

const denoTypes = {
  void: "void",
  u8: "u8",
  i32: "i32",
  u32: "u32",
  u64: "u64",
  handle: "u64",
  buffer: "buffer",
  text: "pointer",
} as const satisfies Record<NativeType, string>;

function denoFfi(): DenoFfi {
  const { Deno: deno } = globalThis as { Deno?: DenoFfi };
  if (!deno) throw new Error("load-deno.ts runs under Deno only");
  return deno;
}

/** Opens the library; throws Deno's own error when the file, a library it needs or a symbol is missing. */
export function loadDeno(path: string): NativeBinding {
  const deno = denoFfi();
  const table: Record<string, { parameters: string[]; result: string }> = {};
  for (const [name, symbol] of Object.entries(symbols)) {
    table[name] = {
      parameters: symbol.args.map((type) => denoTypes[type]),
      result: denoTypes[symbol.returns],
    };
  }
  const library = deno.dlopen(path, table);
  const calls: Record<string, (...args: unknown[]) => unknown> = { ...library.symbols };
  const statusName = library.symbols.sllm_status_name;
  if (!statusName) throw new Error("sllm_status_name is not in the symbol table");
  calls.sllm_status_name = (status) => deno.UnsafePointerView.getCString(statusName(status) as object);
  return {
    // The mapped type cannot follow a table built at run time; NativeCalls is derived from the same symbols.
    calls: calls as unknown as NativeCalls,
    addressOf: (buffer) => deno.UnsafePointer.value(deno.UnsafePointer.of(buffer)),
  };
}
