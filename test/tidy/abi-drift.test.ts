/** The C header, the built library and the TypeScript tables must say the same: functions, constants, layouts. */
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import {
  abiVersion,
  engineKind,
  eventKind,
  finishKind,
  statuses,
  structs,
} from "../../native/bun-ffi-helpers/sllm-structs.ts";
import { type NativeSymbol, type NativeType, symbols } from "../../native/bun-ffi-helpers/symbols.ts";

const root = path.resolve(import.meta.dir, "../..");
const include = path.join(root, "native/include");
const library = process.env.SLLM_NATIVE_LIBRARY ?? path.join(root, "native/build/libsllm.so");
const header = readFileSync(path.join(include, "sllm/sllm.h"), "utf8").replace(/\/\*[\s\S]*?\*\//g, " ");
const constants: Record<string, number> = { ...statuses, ...engineKind, ...eventKind, ...finishKind };

const scalars: Record<string, NativeType> = {
  void: "void",
  uint8_t: "u8",
  uint32_t: "u32",
  int32_t: "i32",
  sllm_status: "i32",
  uint64_t: "u64",
};

/** The kind of a C type in a declaration; `handles` are the structs that the header declares without a body. */
function kindOf(type: string, handles: ReadonlySet<string>, isResult: boolean): NativeType {
  if (!type.includes("*")) {
    const kind = scalars[type];
    if (!kind) throw new Error(`no kind for the C type '${type}'`);
    return kind;
  }
  if (isResult) return "text";
  const pointee = type.replace(/\bconst\b/, "").trim();
  return handles.has(pointee.replace(/\s*\*$/, "")) ? "handle" : "buffer";
}

function functionsOfHeader(): Map<string, NativeSymbol> {
  const handles = new Set([...header.matchAll(/typedef struct (\w+) \1;/g)].map((m) => m[1] ?? ""));
  const found = new Map<string, NativeSymbol>();
  for (const match of header.matchAll(/SLLM_API\s+([\w\s]+?\*?)\s*(sllm_\w+)\(([^)]*)\);/g)) {
    const [, result = "", name = "", list = ""] = match;
    const args = list
      .split(",")
      .map((arg) => arg.replace(/\s+/g, " ").trim())
      .filter((arg) => arg !== "void")
      .map((arg) => kindOf(arg.replace(/\w+$/, "").trim(), handles, false));
    found.set(name, { args, returns: kindOf(result.trim(), handles, true) });
  }
  return found;
}

/** Compiles and runs a C program that includes the header; its output is JSON. */
function runProbe(body: string): unknown {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-abi-"));
  try {
    const source = path.join(folder, "probe.c");
    const program = path.join(folder, "probe");
    writeFileSync(
      source,
      `#include <sllm/sllm.h>\n#include <stdio.h>\nint main(void) {\n${body}\nreturn 0;\n}\n`,
    );
    const compiler = process.env.CC ?? "cc";
    const built = spawnSync(compiler, ["-std=c11", `-I${include}`, source, "-o", program], {
      encoding: "utf8",
    });
    if (built.status !== 0) throw new Error(`${compiler}: ${built.stderr ?? built.error}`);
    return JSON.parse(spawnSync(program, { encoding: "utf8" }).stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("every function of the header is in the symbol table with the same parameters, and no other", () => {
  const declared = functionsOfHeader();
  expect([...declared.keys()].sort()).toEqual(Object.keys(symbols).sort());
  expect(header.match(/^SLLM_API /gm)?.length).toBe(declared.size);
  for (const [name, symbol] of Object.entries(symbols)) {
    expect({ name, ...declared.get(name) }).toEqual({
      name,
      args: [...symbol.args],
      returns: symbol.returns,
    });
  }
});

test("the library exports exactly the functions of the header", () => {
  const listed = spawnSync("nm", ["-D", "--defined-only", library], { encoding: "utf8" });
  expect(listed.stderr).toBe("");
  const exported = listed.stdout
    .split("\n")
    .map((line) => line.split(/\s+/))
    .filter(([, kind, name]) => kind === "T" && name !== undefined && !name.startsWith("_"))
    .map(([, , name]) => name?.replace(/@.*/, "") ?? "");
  expect(exported.sort()).toEqual(Object.keys(symbols).sort());
});

test("every struct has the size and offsets that the C compiler gives it", () => {
  const declared = [...header.matchAll(/\}\s*(sllm_\w+);/g)].map((m) => m[1] ?? "");
  expect(structs.map((s): string => s.name).sort()).toEqual(declared.sort());
  const lines = structs.map((s) => {
    const offsets = s.fields.map((f) => `\\"${f.name}\\":%zu`).join(",");
    const values = s.fields.map((f) => `offsetof(${s.name}, ${f.name})`).join(", ");
    return `printf("\\"${s.name}\\":{\\"bytes\\":%zu,${offsets}}", sizeof(${s.name}), ${values});`;
  });
  const probed = runProbe(`printf("{");\n${lines.join('\nprintf(",");\n')}\nprintf("}");`);
  const ours = Object.fromEntries(
    structs.map((s) => [
      s.name,
      { bytes: s.bytes, ...Object.fromEntries(s.fields.map((f) => [f.name, f.offset])) },
    ]),
  );
  expect(probed).toEqual(ours);
});

test("every constant of the header has the same value in TypeScript, the ABI version too", () => {
  const declared = [...header.matchAll(/\b(SLLM_(?:OK|E|ENGINE|EVENT|FINISH)\w*)\s*=/g)].map(
    (m) => m[1] ?? "",
  );
  expect(Object.keys(constants).sort()).toEqual(declared.sort());
  const names = ["SLLM_ABI_VERSION", ...declared];
  const format = names.map((name) => `\\"${name}\\":%lld`).join(",");
  const values = names.map((name) => `(long long)${name}`).join(", ");
  expect(runProbe(`printf("{${format}}", ${values});`)).toEqual({
    ...constants,
    SLLM_ABI_VERSION: abiVersion,
  });
});

test("the loaded library answers with the header's ABI version and names every status", async () => {
  const native = NativeLibrary.open(library, await runtimeLoader());
  expect(native.abiVersion()).toBe(abiVersion);
  for (const [name, status] of Object.entries(statuses)) expect(native.statusName(status)).toBe(name);
  expect(native.statusName(-12_345)).toBe("SLLM_E_UNKNOWN");
});
