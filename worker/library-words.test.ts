import { expect, test } from "bun:test";
import { libraryWords } from "./library-words.ts";

test("the library's words end where the runtime's crash report begins", () => {
  const lines = [
    "loading",
    "",
    "/build/llama/ggml/src/gguf.cpp:1012: GGML_ASSERT(type == kv.type) failed",
    "============================================================",
    "Bun v1.0 Linux x64",
    "panic: abort() called",
  ];
  expect(libraryWords(lines)).toEqual(["loading", "gguf.cpp:1012: GGML_ASSERT(type == kv.type) failed"]);
});

test("without a report all of them are the library's", () => {
  expect(libraryWords(["a", "== b ==", "c"])).toEqual(["a", "== b ==", "c"]);
});
