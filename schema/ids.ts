/** Identifiers and their text forms. */
import { z } from "zod";
import { limits } from "./limits.ts";

/** Name of a deployed model as clients say it; may hold `/` and `:` like hub names. */
export const modelId = z
  .string()
  .min(1)
  .max(limits.model_id_chars)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:/-]*$/, "use letters, digits and . _ : / -");
export type ModelId = z.infer<typeof modelId>;

/** Name of an adapter of a deployed model: without `:` and `/`, so that the last `:` of an id ends the model's name. */
export const adapterName = z
  .string()
  .min(1)
  .max(limits.adapter_name_chars)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "use letters, digits and . _ -");
export type AdapterName = z.infer<typeof adapterName>;

/** What a request names to be answered by a model with an adapter: `<model>:<adapter>`. */
export function formatAdapterId(model_id: ModelId, name: AdapterName): string {
  return `${model_id}:${name}`;
}

/** Reads such an id back; null when the text is not one. It may still be the name of a model itself. */
export function parseAdapterId(
  text: string,
): { readonly model_id: ModelId; readonly name: AdapterName } | null {
  const colon = text.lastIndexOf(":");
  const model_id = modelId.safeParse(text.slice(0, Math.max(0, colon)));
  const name = adapterName.safeParse(text.slice(colon + 1));
  return model_id.success && name.success ? { model_id: model_id.data, name: name.data } : null;
}

/** 128 random bits in hexadecimal. */
export const generationId = z.string().regex(/^[0-9a-f]{32}$/, "expected 32 hexadecimal digits");
export type GenerationId = z.infer<typeof generationId>;

/** Chosen by the worker and kept in its data folder: the same host keeps its name over restarts. */
export const workerId = z.string().regex(/^w-[0-9a-f]{16}$/, "expected w- and 16 hexadecimal digits");
export type WorkerId = z.infer<typeof workerId>;

export const instanceId = z.string().regex(/^i-[0-9a-f]{16}$/, "expected i- and 16 hexadecimal digits");
export type InstanceId = z.infer<typeof instanceId>;

/** Drawn by every gateway process at its start. */
export const gatewayId = z.string().regex(/^g-[0-9a-f]{16}$/, "expected g- and 16 hexadecimal digits");
export type GatewayId = z.infer<typeof gatewayId>;

export const migrationId = z.string().regex(/^m-[0-9a-f]{16}$/, "expected m- and 16 hexadecimal digits");
export type MigrationId = z.infer<typeof migrationId>;

/** SHA-256 over a checkpoint's content, in hexadecimal; see schema/checkpoint/README.md. */
export const checkpointDigest = z.string().regex(/^[0-9a-f]{64}$/, "expected 64 hexadecimal digits");
export type CheckpointDigest = z.infer<typeof checkpointDigest>;

const hexOfByte: readonly string[] = Array.from({ length: 256 }, (_, b) => b.toString(16).padStart(2, "0"));

/** Hexadecimal text of bytes; the random source is the caller's. */
export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += hexOfByte[byte];
  return text;
}

export interface EventId {
  readonly generation_id: GenerationId;
  readonly worker_id: WorkerId;
  readonly choice: number;
  /** Index of the last output token the event covers; -1 before the first. */
  readonly last_token_index: number;
}

/** `<generation>@<worker>:<choice>.<last token index>`: where a reader stands in a generation. */
export function formatEventId(id: EventId): string {
  return `${id.generation_id}@${id.worker_id}:${id.choice}.${id.last_token_index}`;
}

const eventIdPattern = /^([0-9a-f]{32})@(w-[0-9a-f]{16}):(\d{1,4})\.(-1|\d{1,9})$/;

/** Reads an event id back; null when the text is not one. */
export function parseEventId(text: string): EventId | null {
  const match = eventIdPattern.exec(text);
  if (!match) return null;
  const [, generation_id = "", worker_id = "", choice = "", index = ""] = match;
  return { generation_id, worker_id, choice: Number(choice), last_token_index: Number(index) };
}
