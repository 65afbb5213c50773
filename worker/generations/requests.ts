/** What of a request is the engine's, what is kept to go on with it elsewhere, and whether its history fits. Pure. */
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerateRequest, GenerationSettings } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import type { EmbedSettings, GenerateSettings } from "../instances/request-table.ts";

interface Wanted {
  readonly settings: GenerateSettings | EmbedSettings;
  /** Checkpoint of the adapter that is to answer. */
  readonly adapter?: CheckpointDigest | undefined;
}

/** The engine always tells the prompt's tokens: without them nobody could go on elsewhere. */
export function toEngine(request: GenerateRequest | EmbedRequest): Wanted {
  const { protocol_version: _, generation_id: _g, epoch: _e, instance_id: _i, ...rest } = request;
  if ("inputs" in rest) return { settings: rest };
  const { adapter, owner: _o, history: _h, origin: _or, grace_ms: _gr, ...settings } = rest;
  return { settings: { ...settings, tell_prompt: true }, adapter };
}

export function toSettings(request: GenerateRequest): GenerationSettings {
  const { protocol_version: _, generation_id: _g, epoch: _e, instance_id: _i, ...rest } = request;
  const { owner: _o, history: _h, resume: _r, tell_prompt: _t, ...settings } = rest;
  return settings;
}

/** Throws `invalid_request` where what was told is not the end of the resumed output, without a gap. */
export function checkHistory({ resume, history }: GenerateRequest): void {
  const output = resume?.output ?? [];
  const told = history?.told ?? [];
  let index = told[0]?.first_index ?? output.length;
  for (const event of told) {
    const isNext = event.first_index === index;
    if (!isNext || event.tokens.some(({ token }, i) => token !== output[index + i])) {
      throw new SllmError("invalid_request", "What was told is not the resumed output.", {
        param: "history",
      });
    }
    index += event.tokens.length;
  }
  if (index !== output.length) {
    throw new SllmError("invalid_request", "What was told ends before the resumed output does.", {
      param: "history",
    });
  }
}
