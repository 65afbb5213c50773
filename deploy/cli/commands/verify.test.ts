/** What `sllm verify` says of a store. */
import { expect, test } from "bun:test";
import { limits } from "../../../schema/limits.ts";
import { formatVerified } from "./verify.ts";

const digest = "a".repeat(64);
const damage = { file: "weights.bin", offset: 4096, expected: "XXH3 00", found: "XXH3 01" };

test("a whole store is one line per checkpoint and a sum", () => {
  const text = formatVerified({
    store_dir: "/store",
    checkpoints: [{ digest, bytes: 2 * 1024 ** 2, damages: [] }],
    leftovers: [],
  });
  expect(text).toBe(`${digest}  ok\n1 checkpoint in /store is whole, 2.0 MiB compared.`);
});

test("damages name file, offset, expected and found, and leftovers are named", () => {
  const whole = { file: "header.gguf", offset: null, expected: "5 bytes", found: "4 bytes" };
  const text = formatVerified({
    store_dir: "/store",
    checkpoints: [
      { digest, bytes: 1, damages: [whole, damage] },
      { digest: "b".repeat(64), bytes: 1, damages: [] },
    ],
    leftovers: [".incoming-x"],
  });
  expect(text.split("\n")).toEqual([
    `${digest}  damaged`,
    "  header.gguf: expected 5 bytes, found 4 bytes",
    "  weights.bin at byte 4096: expected XXH3 00, found XXH3 01",
    `${"b".repeat(64)}  ok`,
    ".incoming-x  a conversion that runs, or was cut off and is removed by the next",
    "1 of 2 checkpoints in /store is damaged. Converting its source again mends it.",
  ]);
});

test("a list that was cut says so", () => {
  const damages = Array.from({ length: limits.verify_damages }, () => damage);
  const text = formatVerified({
    store_dir: "/store",
    checkpoints: [{ digest, bytes: 1, damages }],
    leftovers: [],
  });
  expect(text).toContain(`only the first ${limits.verify_damages} are listed`);
});
