import { expect, test } from "bun:test";
import { formatAdapterId, parseAdapterId } from "./ids.ts";

test("an adapter's id is read back, whatever its model is called", () => {
  for (const model_id of ["llama", "org/model:7b", "a:b:c"]) {
    const id = formatAdapterId(model_id, "legal-2.1");
    expect(parseAdapterId(id)).toEqual({ model_id, name: "legal-2.1" });
  }
});

test("what is no such id is null", () => {
  for (const text of ["llama", "", ":legal", "llama:", "llama:a/b", "llama:-x", `llama:${"x".repeat(65)}`]) {
    expect(parseAdapterId(text)).toBeNull();
  }
});
