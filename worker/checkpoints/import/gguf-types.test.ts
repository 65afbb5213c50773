import { expect, test } from "bun:test";
import {
  allTensorTypes,
  fixedValueBytes,
  tensorTypeById,
  tensorTypeByName,
  valueType,
} from "./gguf-types.ts";

test("every type is found by its number and by its name", () => {
  for (const type of allTensorTypes()) {
    expect(tensorTypeById(type.id)).toEqual(type);
  }
  expect(tensorTypeByName("Q4_K").id).toBe(12);
});

test.each([
  ["F32", 32],
  ["F16", 16],
  ["BF16", 16],
  ["Q8_0", 8.5],
  ["Q6_K", 6.5625],
  ["Q5_K", 5.5],
  ["Q4_K", 4.5],
  ["Q4_0", 4.5],
  ["Q3_K", 3.4375],
  ["Q2_K", 2.625],
  ["IQ4_XS", 4.25],
  ["IQ3_S", 3.4375],
  ["IQ2_XXS", 2.0625],
  ["IQ1_S", 1.5625],
  ["IQ1_M", 1.75],
  ["TQ1_0", 1.6875],
  ["MXFP4", 4.25],
] as const)("%s takes the known %p bits an element", (name, bits) => {
  const type = tensorTypeByName(name);
  expect((type.block_bytes * 8) / type.block_elements).toBe(bits);
});

test.each([4, 5, 31, 36, 38, 43, 255, 2 ** 31])("the withdrawn or unknown number %p has no type", (id) => {
  expect(tensorTypeById(id)).toBeNull();
});

test("strings and arrays have no fixed size", () => {
  expect(fixedValueBytes(valueType.string)).toBeNull();
  expect(fixedValueBytes(valueType.array)).toBeNull();
  expect(fixedValueBytes(13)).toBeNull();
  expect(fixedValueBytes(valueType.float64)).toBe(8);
});
