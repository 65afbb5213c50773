/** Vectors as they cross the wire: base64 of 32-bit floating point in little-endian order. */

/** The values of a vector. */
export function decodeVector(encoded: string): number[] {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / Float32Array.BYTES_PER_ELEMENT }, (_, i) =>
    view.getFloat32(i * Float32Array.BYTES_PER_ELEMENT, true),
  );
}
