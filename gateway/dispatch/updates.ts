/** What a generation tells its reader, in order: waiting*, placed, accepted, text*, done. Failures are thrown. */
import type { Usage } from "../../schema/api/chat.ts";
import type { PromptInput, SamplingParams } from "../../schema/cluster/generate.ts";
import type { GenerationId, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { FinishReason } from "../../schema/vocab.ts";

/** What is to be generated, already translated from the public API. */
export interface GenerationRequest {
  readonly model_id: ModelId;
  readonly prompt: PromptInput;
  readonly sampling: SamplingParams;
  readonly stop: readonly string[];
  /** null: until the context is full. */
  readonly max_tokens: number | null;
  readonly ignore_eos: boolean;
}

/** Said at once when waiting begins and about every second while it lasts. */
export interface WaitingUpdate {
  readonly type: "waiting";
  /** `loading`: an instance is being started. `queued`: memory or a slot has to become free first. */
  readonly state: "queued" | "loading";
  /** Estimated time until the instance is ready; null while unknown. */
  readonly eta_ms: number | null;
  readonly bytes_done: number | null;
  readonly bytes_total: number | null;
}

export type GenerationUpdate =
  | WaitingUpdate
  /** A worker was told to generate. Comes again when that failed before the first token. */
  | {
      readonly type: "placed";
      readonly worker_id: WorkerId;
      readonly instance_id: InstanceId;
      readonly cold_start: boolean;
    }
  /** The worker took the prompt. */
  | { readonly type: "accepted"; readonly prompt_tokens: number }
  /** Text of one batch of tokens; empty when all of it is held back to a later one. */
  | { readonly type: "text"; readonly text: string; readonly last_token_index: number }
  | {
      readonly type: "done";
      /** Text that was held back until the end. */
      readonly text: string;
      readonly last_token_index: number;
      readonly finish_reason: FinishReason;
      readonly usage: Usage;
    };

export interface GenerationRun {
  readonly generation_id: GenerationId;
  /** Single reader. Returning early, like an abort of the signal, cancels the generation at its worker. */
  readonly updates: AsyncGenerator<GenerationUpdate, void>;
}
