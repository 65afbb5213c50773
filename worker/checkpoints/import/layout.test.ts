import { describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeFile, MemorySource } from "../../../test/support/gguf.ts";
import { readGguf } from "./gguf-reader.ts";
import { canonicalOrder, orderTensors } from "./layout.ts";

const model = await readGguf(new MemorySource(encodeFile()));
const names = (tensors: readonly { readonly name: string }[]) => tensors.map((tensor) => tensor.name);

describe("the canonical order", () => {
  test("is the engine's; a tensor in two roles counts where it comes first", () => {
    const order = ["token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "token_embd.weight"];
    expect(names(orderTensors(model.tensors, order))).toEqual(order.slice(0, 3));
  });

  test("ends with the tensors that the engine does not use", () => {
    expect(names(orderTensors(model.tensors, ["output_norm.weight"]))).toEqual([
      "output_norm.weight",
      "token_embd.weight",
      "blk.0.attn_norm.weight",
    ]);
  });

  test("cannot name a tensor that the file does not hold", () => {
    expect(() => orderTensors(model.tensors, ["output.weight"])).toThrow(
      '"output.weight", which the file does not hold',
    );
  });

  test("does not depend on the order in the source, and the engine sees a complete sparse file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sllm-layout-"));
    try {
      const seen: string[][] = [];
      const plan = async (path: string) => {
        const bytes = new Uint8Array(await readFile(path));
        const header = await readGguf(new MemorySource(bytes));
        seen.push(names(header.tensors));
        return [];
      };
      const reversed = model.tensors.toReversed();
      const first = await canonicalOrder(model.pairs, model.tensors, folder, plan, undefined);
      const second = await canonicalOrder(model.pairs, reversed, folder, plan, undefined);
      expect(names(first)).toEqual(names(second));
      expect(seen[0]).toEqual(["blk.0.attn_norm.weight", "output_norm.weight", "token_embd.weight"]);
      expect(seen[1]).toEqual(seen[0] ?? []);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
