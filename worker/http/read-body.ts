/** Reads a JSON body of the cluster's protocol: the one way in for bodies. */
import type { Context } from "hono";
import type { z } from "zod";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import { parseOrThrow, SllmError } from "../../schema/error.ts";

/** Parses a JSON body. The protocol version is looked at first: another one explains every other difference. */
export async function readBody<S extends z.ZodType>(c: Context, schema: S): Promise<z.output<S>> {
  if (!/^application\/json\b/i.test(c.req.header("content-type") ?? "")) {
    throw new SllmError("unsupported_media_type", "The body must be application/json.");
  }
  let body: unknown;
  try {
    body = JSON.parse(await c.req.text());
  } catch (cause) {
    if (cause instanceof SllmError) throw cause;
    throw new SllmError("invalid_request", "The body is not JSON.", { cause });
  }
  const version =
    typeof body === "object" && body !== null && "protocol_version" in body && body.protocol_version;
  if (typeof version === "number" && version !== protocolVersion) {
    const message = `This worker speaks protocol version ${protocolVersion}, the caller ${version}.`;
    throw new SllmError("protocol_mismatch", message);
  }
  return parseOrThrow(schema, body);
}
