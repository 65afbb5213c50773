/**
 * What a generation tells its reader, in order: waiting*, placed, accepted, (text | vectors)*, done; `waiting` and `moved`
 * also in between. Failures are thrown.
 */
import type { Usage } from "../../schema/api/answers.ts";
import type { AnswerFormat, MessageDelta, PromptInput } from "../../schema/cluster/conversation.ts";
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerationOrigin, OutputToken, SamplingParams } from "../../schema/cluster/generate.ts";
import type { CheckpointDigest, GenerationId, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { FinishReason, ModelTask, Priority } from "../../schema/vocab.ts";

type EmbedFields = Readonly<Pick<EmbedRequest, "inputs" | "query" | "dimensions">>;

/** What is to be generated, already translated from the public API. */
export interface GenerationRequest {
  /** As the client names it; of an adapter, `<model>:<adapter>`, until the dispatcher has found it. */
  readonly model_id: ModelId;
  readonly prompt: PromptInput;
  readonly sampling: SamplingParams;
  readonly stop: readonly string[];
  /** null: until the context is full. */
  readonly max_tokens: number | null;
  readonly ignore_eos: boolean;
  /** null: anything. */
  readonly format: AnswerFormat | null;
  /** Checkpoint of the adapter that answers, found by the dispatcher in `model_id`. */
  readonly adapter?: CheckpointDigest;
  /** What the client gets, for whoever tells it again. */
  readonly answer?: Pick<GenerationOrigin, "shape" | "model" | "include_usage">;
  /** For gateways that meet the generation elsewhere; the dispatcher's. */
  readonly origin?: GenerationOrigin;
  /** How long its worker keeps it without a reader; the dispatcher's. */
  readonly grace_ms?: number;
}

/** Vectors of texts, or scores of documents for a query, that are to be computed. */
export interface EmbeddingRequest extends EmbedFields {
  readonly model_id: ModelId;
}

/** How a request is queued. */
export interface RequestEntry {
  readonly tenant: string;
  readonly priority: Priority;
  /** Time it has until it must have an instance; null: as long as the gateway holds requests. */
  readonly deadline_ms: number | null;
}

/** Whatever runs as a generation does. */
export type WorkRequest = GenerationRequest | EmbeddingRequest;

export function taskOfRequest(request: WorkRequest): ModelTask {
  if (!("inputs" in request)) return "generate";
  return request.query === undefined ? "embed" : "rerank";
}

/** What some tokens say. */
export interface AnswerPiece {
  /** Which of several answers to one request, from 0. */
  readonly choice: number;
  /** Empty when all of it is held back to a later piece. */
  readonly text: string;
  /** What it adds to the message; null where the message is the text itself. */
  readonly delta: MessageDelta | null;
  readonly tokens: readonly OutputToken[];
  readonly last_token_index: number;
}

/** Said at once when waiting begins and about every second while it lasts. */
export interface WaitingUpdate {
  readonly type: "waiting";
  /** `loading`: an instance is being started. `queued`: memory or a slot has to become free first. */
  readonly state: "queued" | "loading";
  /** Place among the requests that wait for the same model at this gateway, 1 for the next. */
  readonly position: number;
  /** Estimated time until the request is served; null while unknown. */
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
  /** It goes on at another worker, from the next token. `moved`: as planned; `failover`: the one before was lost. */
  | {
      readonly type: "moved";
      readonly worker_id: WorkerId;
      readonly instance_id: InstanceId;
      readonly why: "moved" | "failover";
    }
  /** The worker took the prompt. */
  | { readonly type: "accepted"; readonly prompt_tokens: number }
  | ({ readonly type: "text" } & AnswerPiece)
  /** Of the inputs in their order, encoded as at the worker. */
  | { readonly type: "vectors"; readonly vectors: readonly string[] }
  /** The end of a choice; its text was held back until now. */
  | ({
      readonly type: "done";
      readonly finish_reason: FinishReason;
      readonly usage: Usage;
      /** A tool call was told before, perhaps to a reader that has had it elsewhere. */
      readonly had_calls?: boolean;
    } & AnswerPiece);

export interface GenerationRun {
  readonly generation_id: GenerationId;
  /** Single reader. Returning early, like an abort of the signal, cancels the generation at its worker. */
  readonly updates: AsyncGenerator<GenerationUpdate, void>;
}
