import { expect, test } from "bun:test";
import { decodeVector } from "./vector-values.ts";

test("a vector comes back as it was encoded", () => {
  const values = [0, -1, 0.5, 3.25e-20];
  const encoded = Buffer.from(new Float32Array(values).buffer).toString("base64");
  expect(decodeVector(encoded)).toEqual([...new Float32Array(values)]);
});
