/** Damage to GGUF files for fuzz tests: as data, so that fast-check can shrink it, and applied to a copy. */
import fc from "fast-check";

export type Mutation =
  | { readonly kind: "flip"; readonly at: number; readonly bit: number }
  | { readonly kind: "cut"; readonly at: number }
  /** A number of 4 or 8 bytes written over what is there: counts, lengths, types, offsets. */
  | { readonly kind: "number"; readonly at: number; readonly bytes: 4 | 8; readonly value: bigint }
  | { readonly kind: "copy"; readonly from: number; readonly at: number; readonly bytes: number }
  | { readonly kind: "insert"; readonly at: number; readonly bytes: Uint8Array };

/** Values that parsers get wrong: borders of types, powers of two, and just beyond limits. */
const odd = [
  ...[0n, 1n, 3n, 4n, 8n, 9n, 13n, 31n, 64n, 255n, 4096n, 65_535n, 65_537n, 131_073n, 8_388_608n, 8_388_609n],
  ...[16n, 24n, 31n, 32n, 33n, 40n, 48n, 52n, 53n, 62n, 63n].flatMap((n) => [1n << n, (1n << n) - 1n]),
  ...[0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_fff0n, 0x8000_0000_0000_0000n],
];

/**
 * One piece of damage to a file of this size. Places where fields begin are hit often, since a random offset mostly
 * hits the middle of a text.
 */
export function mutation(fileBytes: number, fields: readonly number[]): fc.Arbitrary<Mutation> {
  const anywhere = fc.integer({ min: 0, max: fileBytes - 1 });
  const place = fields.length === 0 ? anywhere : fc.oneof(anywhere, fc.constantFrom(...fields));
  return fc.oneof(
    fc.record({ kind: fc.constant("flip" as const), at: place, bit: fc.integer({ min: 0, max: 7 }) }),
    fc.record({ kind: fc.constant("cut" as const), at: place }),
    fc.record({
      kind: fc.constant("number" as const),
      at: place,
      bytes: fc.constantFrom(4 as const, 8 as const),
      value: fc.constantFrom(...odd),
    }),
    fc.record({
      kind: fc.constant("copy" as const),
      from: place,
      at: place,
      bytes: fc.integer({ min: 1, max: 64 }),
    }),
    fc.record({ kind: fc.constant("insert" as const), at: place, bytes: fc.uint8Array({ maxLength: 16 }) }),
  );
}

/** The file with the damage, one after the other. The original stays as it is. */
export function mutate(original: Uint8Array, mutations: readonly Mutation[]): Uint8Array {
  let content: Uint8Array = Uint8Array.from(original);
  for (const m of mutations) content = mutateOnce(content, m);
  return content;
}

function mutateOnce(content: Uint8Array, m: Mutation): Uint8Array {
  const at = Math.min(m.at, content.length);
  switch (m.kind) {
    case "flip": {
      const byte = content[at];
      if (byte !== undefined) content[at] = byte ^ (1 << m.bit);
      return content;
    }
    case "cut":
      return content.slice(0, at);
    case "number":
      if (at + m.bytes > content.length) return content;
      if (m.bytes === 8) new DataView(content.buffer).setBigUint64(at, m.value, true);
      else new DataView(content.buffer).setUint32(at, Number(m.value & 0xffff_ffffn), true);
      return content;
    case "copy":
      content.copyWithin(at, m.from, m.from + m.bytes);
      return content;
    case "insert":
      return Buffer.concat([content.subarray(0, at), m.bytes, content.subarray(at)]);
  }
}

/** Offsets of all fields of a GGUF header: counts, lengths, types, dimensions and offsets. */
export function fieldOffsets(file: Uint8Array): number[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const fields = [0, 4, 8, 16];
  let at = 24;
  const field = (bytes: number) => {
    fields.push(at);
    at += bytes;
  };
  const length = () => {
    const value = Number(view.getBigUint64(at, true));
    field(8);
    return value;
  };
  const text = () => {
    const bytes = length();
    at += bytes;
  };
  const value = (type: number) => {
    if (type === 8) text();
    else field([1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][type] ?? 0);
  };
  const [tensors, pairs] = [view.getBigUint64(8, true), view.getBigUint64(16, true)];
  for (let i = 0; i < pairs; i++) {
    text();
    const type = view.getUint32(at, true);
    field(4);
    if (type !== 9) {
      value(type);
      continue;
    }
    const element = view.getUint32(at, true);
    field(4);
    for (let left = length(); left > 0; left--) value(element);
  }
  for (let i = 0; i < tensors; i++) {
    text();
    const dimensions = view.getUint32(at, true);
    field(4);
    for (let d = 0; d < dimensions; d++) field(8);
    field(4);
    field(8);
  }
  return fields;
}
