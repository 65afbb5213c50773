/** Cuts a byte stream into lines. */

/** A longer line is passed on in pieces, so that no child can fill our memory. */
const lineCharsMax = 64 * 1024;

/** Calls `onLine` for every line, without its end, until the stream ends; the last one needs no line end. */
export async function readLines(
  stream: ReadableStream<Uint8Array>,
  onLine: (line: string) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) onLine(line.replace(/\r$/, ""));
    if (rest.length > lineCharsMax) {
      onLine(rest);
      rest = "";
    }
  }
  if (rest !== "") onLine(rest);
}
