/** Types of GGUF metadata values and of GGML tensors, with the sizes that the format fixes. */

/** Numbers of metadata value types. */
export const valueType = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

const scalarBytes: Readonly<Record<number, number>> = {
  [valueType.uint8]: 1,
  [valueType.int8]: 1,
  [valueType.uint16]: 2,
  [valueType.int16]: 2,
  [valueType.uint32]: 4,
  [valueType.int32]: 4,
  [valueType.float32]: 4,
  [valueType.bool]: 1,
  [valueType.uint64]: 8,
  [valueType.int64]: 8,
  [valueType.float64]: 8,
};

/** Size of a value of fixed size; null for strings, arrays and unknown types. */
export function fixedValueBytes(type: number): number | null {
  return scalarBytes[type] ?? null;
}

export interface TensorType {
  /** Number in the file. */
  readonly id: number;
  /** Name as people write it: F16, Q4_K. */
  readonly name: string;
  /** Elements that are packed together; a row holds whole blocks. */
  readonly block_elements: number;
  readonly block_bytes: number;
}

/** id, name, elements per block, bytes per block. Numbers that are missing were withdrawn from the format. */
const table = [
  [0, "F32", 1, 4],
  [1, "F16", 1, 2],
  [2, "Q4_0", 32, 18],
  [3, "Q4_1", 32, 20],
  [6, "Q5_0", 32, 22],
  [7, "Q5_1", 32, 24],
  [8, "Q8_0", 32, 34],
  [9, "Q8_1", 32, 36],
  [10, "Q2_K", 256, 84],
  [11, "Q3_K", 256, 110],
  [12, "Q4_K", 256, 144],
  [13, "Q5_K", 256, 176],
  [14, "Q6_K", 256, 210],
  [15, "Q8_K", 256, 292],
  [16, "IQ2_XXS", 256, 66],
  [17, "IQ2_XS", 256, 74],
  [18, "IQ3_XXS", 256, 98],
  [19, "IQ1_S", 256, 50],
  [20, "IQ4_NL", 32, 18],
  [21, "IQ3_S", 256, 110],
  [22, "IQ2_S", 256, 82],
  [23, "IQ4_XS", 256, 136],
  [24, "I8", 1, 1],
  [25, "I16", 1, 2],
  [26, "I32", 1, 4],
  [27, "I64", 1, 8],
  [28, "F64", 1, 8],
  [29, "IQ1_M", 256, 56],
  [30, "BF16", 1, 2],
  [34, "TQ1_0", 256, 54],
  [35, "TQ2_0", 256, 66],
  [39, "MXFP4", 32, 17],
  [40, "NVFP4", 64, 36],
  [41, "Q1_0", 128, 18],
  [42, "Q2_0", 64, 18],
] as const;

const byId: ReadonlyMap<number, TensorType> = new Map(
  table.map(([id, name, block_elements, block_bytes]) => [id, { id, name, block_elements, block_bytes }]),
);

export type TensorTypeName = (typeof table)[number][1];

/** The type with a number of the format; null for withdrawn and unknown ones. */
export function tensorTypeById(id: number): TensorType | null {
  return byId.get(id) ?? null;
}

/** The type of a name as in the table. */
export function tensorTypeByName(name: TensorTypeName): TensorType {
  for (const type of byId.values()) if (type.name === name) return type;
  throw new Error(`no tensor type ${name}`);
}

/** Every tensor type of this release. */
export function allTensorTypes(): readonly TensorType[] {
  return [...byId.values()];
}
