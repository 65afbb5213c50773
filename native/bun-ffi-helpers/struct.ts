/**
 * C structs as declarations: names and kinds in order give offsets, size, an encoder and a decoder. Only what the
 * header uses exists, little endian, and hidden padding is refused, as the header promises to have none.
 */

/** A kind of member: numbers of a width, an address, or a fixed array of characters. */
export type FieldKind = "u32" | "i32" | "u64" | "f32" | "f64" | "pointer" | `char[${number}]`;

type ValueOf<K extends FieldKind> = K extends "u32" | "i32" | "f32" | "f64"
  ? number
  : K extends "u64" | "pointer"
    ? bigint
    : string;

export type StructValues<F extends Record<string, FieldKind>> = { -readonly [K in keyof F]: ValueOf<F[K]> };

export interface StructField {
  readonly name: string;
  readonly kind: FieldKind;
  readonly offset: number;
  readonly bytes: number;
}

export interface Struct<F extends Record<string, FieldKind>> {
  readonly name: string;
  readonly bytes: number;
  readonly fields: readonly StructField[];
  /** A new buffer with the values; `struct_size` is filled in, members left out are 0. */
  encode(values: Partial<StructValues<F>>): Uint8Array;
  /** An empty buffer to be filled by the library, `struct_size` set. */
  allocate(): Uint8Array;
  /** Reads one struct. Text ends at its first NUL. */
  decode(view: DataView, offset?: number): StructValues<F>;
}

const numberBytes = { u32: 4, i32: 4, u64: 8, f32: 4, f64: 8, pointer: 8 } as const;
const decoder = new TextDecoder();

function isNumberKind(kind: FieldKind): kind is keyof typeof numberBytes {
  return kind in numberBytes;
}

function bytesOf(kind: FieldKind): number {
  return isNumberKind(kind) ? numberBytes[kind] : Number(kind.slice(5, -1));
}

function place(name: string, declared: Record<string, FieldKind>): StructField[] {
  let offset = 0;
  return Object.entries(declared).map(([field, kind]) => {
    const bytes = bytesOf(kind);
    if (isNumberKind(kind) && offset % bytes !== 0) throw new Error(`${name}.${field} would need padding`);
    const placed = { name: field, kind, offset, bytes };
    offset += bytes;
    return placed;
  });
}

function write(view: DataView, field: StructField, value: unknown): void {
  const { kind, offset } = field;
  if ((kind === "u64" || kind === "pointer") && typeof value === "bigint") {
    view.setBigUint64(offset, value, true);
  } else if (kind === "u32" && typeof value === "number") view.setUint32(offset, value, true);
  else if (kind === "i32" && typeof value === "number") view.setInt32(offset, value, true);
  else if (kind === "f32" && typeof value === "number") view.setFloat32(offset, value, true);
  else if (kind === "f64" && typeof value === "number") view.setFloat64(offset, value, true);
  else throw new TypeError(`${field.name} is a ${kind} and cannot hold a ${typeof value}`);
}

function read(view: DataView, field: StructField, base: number): number | bigint | string {
  const at = base + field.offset;
  switch (field.kind) {
    case "u32":
      return view.getUint32(at, true);
    case "i32":
      return view.getInt32(at, true);
    case "f32":
      return view.getFloat32(at, true);
    case "f64":
      return view.getFloat64(at, true);
    case "u64":
    case "pointer":
      return view.getBigUint64(at, true);
    default: {
      const bytes = new Uint8Array(view.buffer, view.byteOffset + at, field.bytes);
      const end = bytes.indexOf(0);
      return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
    }
  }
}

/** Declares a struct. Throws when its members would need hidden padding. */
export function struct<const F extends Record<string, FieldKind>>(name: string, declared: F): Struct<F> {
  const fields = place(name, declared);
  const last = fields.at(-1);
  const bytes = last ? last.offset + last.bytes : 0;
  if (fields.some((f) => f.bytes === 8) && bytes % 8 !== 0) throw new Error(`${name} would need padding`);
  const allocate = () => {
    // A buffer of its own: small typed arrays may lie inside a heap that moves.
    const memory = new Uint8Array(new ArrayBuffer(bytes));
    if (fields[0]?.name === "struct_size") new DataView(memory.buffer).setUint32(0, bytes, true);
    return memory;
  };
  return {
    name,
    bytes,
    fields,
    allocate,
    encode(values) {
      const memory = allocate();
      const view = new DataView(memory.buffer);
      const given: Record<string, unknown> = values;
      for (const field of fields) {
        if (given[field.name] !== undefined) write(view, field, given[field.name]);
      }
      return memory;
    },
    decode(view, offset = 0) {
      const values: Record<string, number | bigint | string> = {};
      for (const field of fields) values[field.name] = read(view, field, offset);
      // The loop visits exactly the declared fields with their kinds.
      return values as StructValues<F>;
    },
  };
}
