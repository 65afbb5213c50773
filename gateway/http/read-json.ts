/** Reads a JSON request body within a bound and parses it with a schema: the one way in for bodies. */
import type { z } from "zod";
import { parseOrThrow, SllmError } from "../../schema/error.ts";
import type { AppContext } from "./context.ts";

const jsonType = /^application\/(?:[\w.+-]+\+)?json *(?:;|$)/i;

/**
 * The body as JSON. Throws `unsupported_media_type`, `payload_too_large`, or `invalid_request` when it is not JSON.
 * Asking for the content type also keeps pages of other origins from posting without a preflight.
 */
export async function readJson(c: AppContext, maxBytes: number): Promise<unknown> {
  if (!jsonType.test(c.req.header("content-type") ?? "")) {
    throw new SllmError("unsupported_media_type", "The body must be JSON.");
  }
  const text = await readText(c.req.raw, maxBytes);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SllmError("invalid_request", "The body is not valid JSON.", { cause: error });
  }
}

/** The body parsed; throws `invalid_request` naming the field beside what readJson throws. */
export async function readBody<S extends z.ZodType>(
  c: AppContext,
  schema: S,
  maxBytes: number,
): Promise<z.output<S>> {
  return parseOrThrow(schema, await readJson(c, maxBytes));
}

/** Servers deliver no more than the length that was declared; where none is, what comes is counted. */
async function readText(request: Request, maxBytes: number): Promise<string> {
  const declared = request.headers.get("content-length");
  if (declared !== null && Number(declared) > maxBytes) throw tooLarge(maxBytes);
  if (declared !== null && /^\d+$/.test(declared)) {
    const text = await request.text();
    if (text.length > maxBytes) throw tooLarge(maxBytes);
    return text;
  }
  if (request.body === null) return "";
  const reader = request.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.byteLength;
    if (bytes > maxBytes) {
      await reader.cancel();
      throw tooLarge(maxBytes);
    }
    text += decoder.decode(value, { stream: true });
  }
}

function tooLarge(maxBytes: number): SllmError {
  return new SllmError("payload_too_large", `The body is larger than ${maxBytes} bytes.`);
}
