/** Requests as workers take them, and back from what a worker or the store kept of them. Pure. */
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerateRequest, GenerationSettings } from "../../schema/cluster/generate.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { GatewayId, InstanceId } from "../../schema/ids.ts";
import type { Generation } from "./generation.ts";
import type { Told } from "./told.ts";
import type { EmbeddingRequest, GenerationRequest, WorkRequest } from "./updates.ts";

/** Everything that decides the generation, wherever it runs. */
export function toSettings(request: GenerationRequest): GenerationSettings {
  const { model_id: _, answer: _a, format, stop, ...rest } = request;
  return { ...rest, stop: [...stop], ...(format === null ? {} : { format }) };
}

/** The request that a record was made of; null where it does not say whose model it is. */
export function fromSettings(settings: GenerationSettings): GenerationRequest | null {
  const { format = null, origin, adapter, grace_ms, ...rest } = settings;
  if (origin === undefined) return null;
  return {
    ...{ ...rest, format, origin, model_id: origin.model_id },
    ...(adapter === undefined ? {} : { adapter }),
    ...(grace_ms === undefined ? {} : { grace_ms }),
  };
}

export function isEmbedding(request: WorkRequest): request is EmbeddingRequest {
  return "inputs" in request;
}

export function toEmbedCall(
  { generation_id, epoch }: Generation,
  instance_id: InstanceId,
  { model_id: _, ...request }: EmbeddingRequest,
): EmbedRequest {
  return { protocol_version: protocolVersion, generation_id, epoch, instance_id, ...request };
}

/** A first attempt, or one that goes on after what was told: the state is that of the attempt, already sent. */
export function toGenerateCall(
  state: Generation,
  instance_id: InstanceId,
  request: GenerationRequest,
  known: { readonly owner: GatewayId; readonly told: Told; readonly prompt: readonly number[] | null },
): GenerateRequest {
  const { generation_id, epoch, hops } = state;
  const { owner, told, prompt } = known;
  const run = {
    protocol_version: protocolVersion,
    generation_id,
    epoch,
    owner,
    instance_id,
    tell_prompt: true,
  };
  const call = { ...run, ...toSettings(request) };
  if (told.next_index === 0 || prompt === null) return call;
  return {
    ...call,
    resume: { prompt: [...prompt], output: [...told.output] },
    // The last hop is this attempt's, which the worker adds itself.
    history: { hops: hops.slice(0, -1), told: [...told.events] },
  };
}
