/** Layers of the native library: abi -> engine -> store -> io -> core; an include never points up. */
import { isNative, lineAt, type Problem, type SourceFile } from "./sources.ts";

/** From the top down. The C header belongs to every layer: its status codes are the library's only ones. */
const layers = ["abi", "engine", "store", "io", "core"];

/** Folders of tests and of the header, which stand outside the layers. */
const outside = /^native\/(test|include|vendor)\//;

/** Includes that point up, or out of the library to files that are no layer. */
export function checkNativeLayers(file: SourceFile): Problem[] {
  if (!isNative(file) || outside.test(file.path)) return [];
  const own = layers.indexOf(file.path.split("/")[1] ?? "");
  if (own < 0) return [`${file.path}:1: this folder is not a layer of the native library`];
  return [...file.text.matchAll(/^[ \t]*#\s*include\s+"([^"]+)"/gm)].flatMap((match) => {
    const target = match[1] ?? "";
    const refuse = (why: string) => [
      `${file.path}:${lineAt(file.text, match.index)}: include of ${target}: ${why}`,
    ];
    if (target.startsWith(".")) return refuse("write it from the library's root");
    if (target.startsWith("sllm/")) return [];
    const layer = layers.indexOf(target.split("/")[0] ?? "");
    if (layer < 0)
      return file.path.startsWith("native/engine/llama/") || target.includes("xxhash")
        ? []
        : refuse("not of ours");
    return layer < own ? refuse(`${layers[own]} must not know ${layers[layer]}`) : [];
  });
}
