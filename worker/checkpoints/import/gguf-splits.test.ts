import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type MetadataPair,
  writeGgufFile,
  writeSplitGguf,
} from "../../../test/models/generator/gguf-file.ts";
import { floatTensor, leastMetadata, leastTensors } from "../../../test/support/gguf.ts";
import { openGguf } from "./gguf-splits.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sllm-splits-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function opened(path: string) {
  const model = await openGguf(path);
  await model.close();
  return model;
}

const split = (count = 3) => writeSplitGguf(join(folder, "m.gguf"), leastMetadata, leastTensors, count);
const partPath = (i: number, count: number) => join(folder, `m-0000${i}-of-0000${count}.gguf`);

function writePart(i: number, count: number, pairs: readonly MetadataPair[], tensor: string) {
  writeGgufFile(partPath(i, count), pairs, [floatTensor(tensor, [4])]);
}

const splitPairs = (no: number, count: number): MetadataPair[] => [
  ["split.no", "uint16", no],
  ["split.count", "uint16", count],
];

describe("a split model", () => {
  test("is found whole from any of its parts", async () => {
    const paths = split();
    for (const path of paths) {
      const model = await opened(path);
      expect(model.tensors.map((tensor) => tensor.name)).toEqual(leastTensors.map((tensor) => tensor.name));
      expect(model.sources.map((source) => source.name)).toEqual(
        paths.map((p) => p.slice(folder.length + 1)),
      );
      expect(model.pairs.map((pair) => pair.key)).toEqual(leastMetadata.map(([key]) => key));
    }
  });

  test("may have a first part without tensors", async () => {
    writeGgufFile(partPath(1, 2), [...leastMetadata, ...splitPairs(0, 2)], []);
    writePart(2, 2, splitPairs(1, 2), "a");
    expect((await opened(partPath(1, 2))).tensors).toHaveLength(1);
  });

  test("with a missing part is refused by its name", async () => {
    const [first = "", second = ""] = split();
    await rm(second);
    await expect(opened(first)).rejects.toMatchObject({
      code: "checkpoint_invalid",
      message: expect.stringContaining("Part 2 of 3 is needed too. Cannot open m-00002-of-00003.gguf"),
    });
  });

  test("with a damaged part is refused", async () => {
    const [first = "", second = ""] = split();
    await writeFile(second, "nonsense");
    await expect(opened(first)).rejects.toThrow("m-00002-of-00003.gguf: at byte 0: this is not a GGUF file");
  });

  test("under another name than parts have is refused", async () => {
    const [first = ""] = split();
    await rename(first, join(folder, "renamed.gguf"));
    await expect(opened(join(folder, "renamed.gguf"))).rejects.toThrow("must be named like");
  });

  test("whose parts point at each other in a circle is refused", async () => {
    writePart(1, 2, [...leastMetadata, ...splitPairs(1, 2)], "a");
    writePart(2, 2, splitPairs(0, 2), "b");
    await expect(opened(partPath(1, 2))).rejects.toThrow("it says it is part 2, not 1");
  });

  test("whose parts count differently is refused", async () => {
    writePart(1, 2, [...leastMetadata, ...splitPairs(0, 2)], "a");
    writePart(2, 2, splitPairs(1, 3), "b");
    await expect(opened(partPath(1, 2))).rejects.toThrow("it says there are 3 parts, not 2");
  });

  test("with one tensor in two parts is refused", async () => {
    writePart(1, 2, [...leastMetadata, ...splitPairs(0, 2)], "a");
    writePart(2, 2, splitPairs(1, 2), "a");
    await expect(opened(partPath(1, 2))).rejects.toThrow(
      '"a" stands in m-00001-of-00002.gguf and in m-00002',
    );
  });

  test("with fewer tensors than its first part says is refused", async () => {
    const pairs: MetadataPair[] = [
      ...leastMetadata,
      ...splitPairs(0, 2),
      ["split.tensors.count", "int32", 5],
    ];
    writePart(1, 2, pairs, "a");
    writePart(2, 2, splitPairs(1, 2), "b");
    await expect(opened(partPath(1, 2))).rejects.toThrow(
      "hold 2 tensors together, but m-00001-of-00002.gguf says 5",
    );
  });

  test("of more parts than the limit is refused before any is opened", async () => {
    writeGgufFile(partPath(1, 2), [...leastMetadata, ...splitPairs(0, 60_000)], leastTensors);
    await expect(opened(partPath(1, 2))).rejects.toMatchObject({ code: "checkpoint_unsupported" });
  });
});

describe("a single file", () => {
  test("may be called like a part and may say that it is the only one", async () => {
    writePart(1, 1, [...leastMetadata, ...splitPairs(0, 1)], "a");
    const model = await opened(partPath(1, 1));
    expect(model.pairs.some((pair) => pair.key.startsWith("split."))).toBe(false);
  });

  test("without tensors is refused", async () => {
    writeGgufFile(join(folder, "none.gguf"), leastMetadata, []);
    await expect(opened(join(folder, "none.gguf"))).rejects.toThrow("holds no tensors");
  });

  test("that does not exist, is a folder or a pipe is refused without waiting", async () => {
    await expect(opened(join(folder, "missing.gguf"))).rejects.toMatchObject({
      code: "io_error",
      message: "Cannot open missing.gguf: no such file or directory.",
    });
    await expect(opened(folder)).rejects.toThrow("is not a regular file");
    const pipe = join(folder, "pipe.gguf");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    await expect(opened(pipe)).rejects.toThrow("is not a regular file");
  });
});
