/**
 * A generation on its way to another worker, at its source: rounds of tokens while it goes on here, then the hand-over.
 * It goes on here whenever the destination is known not to have it, and stands still while that is not known.
 */
import type { GenerationRecord } from "../../schema/cluster/attach.ts";
import type { GenerationPlace, TokensEvent } from "../../schema/cluster/generate.ts";
import type {
  HandOverRequest,
  HandOverResponse,
  MoveEvent,
  MoveRequest,
} from "../../schema/cluster/moves.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import { SllmError, toSllmError, type WireError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";
import { Approach } from "./approach.ts";
import type { Destination } from "./destination.ts";
import type { KvSource } from "./kv-sender.ts";

/** What of a running generation is needed to move it. */
export interface LeavingStream {
  record(): GenerationRecord;
  readonly checkpoint: CheckpointDigest;
  /** Of the prompt, found in the KV cache where it began. */
  readonly cached_tokens: number;
  /** Its rows in the KV cache; null where they cannot be moved. */
  readonly kv: KvSource | null;
  /** One beyond the last output token that its readers can have. */
  readonly nextIndex: number;
  readonly hasEnded: boolean;
  /** Events as they were told, from the one with this token on. */
  told(from: number): TokensEvent[];
  /** Resolves when there are tokens from `index` on, or there will be none. */
  grown(index: number, signal: AbortSignal): Promise<void>;
  /** Draws no more tokens when this resolves to true; false when it ended before. */
  hold(): Promise<boolean>;
  goOn(): void;
  /** Its readers are sent there; it is over here. */
  leave(to: GenerationPlace): void;
}

export interface DepartureOptions {
  readonly stream: LeavingStream;
  readonly request: MoveRequest;
  readonly destination: Destination;
  readonly clock: Clock;
  readonly onEvent: (event: MoveEvent) => void;
}

/** `held`: nothing is drawn. `stopped`: it goes on here, whatever comes. The last two are ends. */
type State = "copying" | "held" | "stopped" | "over";

export class Departure {
  /** Resolves when it is over here: handed over, or nothing came of it. */
  readonly over: Promise<void>;
  readonly #options: DepartureOptions;
  readonly #ended = Promise.withResolvers<void>();
  readonly #approach: Approach;
  #state: State = "copying";

  constructor(options: DepartureOptions) {
    this.#options = options;
    this.over = this.#ended.promise;
    const { onEvent: _, ...rest } = options;
    this.#approach = new Approach({ ...rest, onEvent: (event) => this.#tell(event) });
  }

  /** Sends it there until it is handed over, has ended, or the move is stopped. Never rejects. */
  async run(): Promise<void> {
    const { onEvent } = this.#options;
    void this.#watchEnd();
    try {
      await this.#approach.run();
    } catch (thrown) {
      const { code, message } = toSllmError(thrown);
      if (this.#state === "copying") this.#end({ type: "error", error: { code, message } });
    }
    if (this.#state !== "stopped") return;
    onEvent({ type: "error", error: stoppedError });
    // A call that was on its way when the move was stopped may have come after the first word of it.
    await this.#drop();
  }

  /** The gateway that asked for it does so no more: it goes on here, unless the hand-over has begun. */
  stop(): void {
    if (this.#state !== "copying") return;
    this.#state = "stopped";
    this.#ended.resolve();
    this.#approach.stop();
    void this.#drop();
  }

  /** See HandOverResponse. Errors: `state_conflict` when it is not ready, or was asked for with another epoch. */
  async handOver({ epoch, owner }: HandOverRequest): Promise<HandOverResponse> {
    const { stream, clock, request } = this.#options;
    if (this.#state !== "copying" || !this.#approach.isReady || epoch !== request.epoch) {
      throw new SllmError("state_conflict", "The generation is not ready to be handed over.");
    }
    this.#state = "held";
    this.#approach.stop();
    if (!(await stream.hold())) {
      this.#end({ type: "ended" });
      return this.#outcome("ended", 0, 0, null);
    }
    const began_ms = clock.monotonicMs();
    const missing = stream.nextIndex - this.#approach.acknowledged;
    const last = {
      protocol_version: protocolVersion,
      epoch,
      owner,
      told: stream.told(this.#approach.acknowledged),
    };
    const error = await this.#tellGo(last, began_ms + limits.hand_over_ms);
    const took_ms = clock.monotonicMs() - began_ms;
    if (error === null) return this.#outcome("moved", missing, took_ms, null);
    const isUnknown = error.code === "worker_unavailable";
    if (isUnknown) void this.#keepAsking(last);
    return this.#outcome(isUnknown ? "unknown" : "refused", missing, took_ms, error);
  }

  /** The destination will never have it: it goes on here. Only after a hand-over that nobody knows the end of. */
  goOn(): void {
    if (this.#state !== "held") return;
    this.#options.stream.goOn();
    this.#end({ type: "error", error: stoppedError });
  }

  /** It may end while the destination takes its time. */
  async #watchEnd(): Promise<void> {
    const { stream } = this.#options;
    await stream.grown(Number.POSITIVE_INFINITY, this.#approach.signal);
    if (this.#state === "copying" && stream.hasEnded) this.#end({ type: "ended" });
  }

  /** null when it runs there. What the destination refuses goes on here; a silent one is asked again for a while. */
  async #tellGo(last: Parameters<Destination["go"]>[1], until_ms: number): Promise<WireError | null> {
    const { stream, destination, clock, request } = this.#options;
    const { generation_id } = stream.record();
    for (;;) {
      try {
        await destination.go(generation_id, last);
        const { incarnation: _, ...to } = request.to;
        if (this.#state === "held") {
          stream.leave({ ...to, epoch: last.epoch });
          this.#end({ type: "handed_over" });
        }
        return null;
      } catch (thrown) {
        const { code, message } = toSllmError(thrown);
        if (this.#state !== "held") return { code: "state_conflict", message: stoppedError.message };
        if (code !== "worker_unavailable") {
          stream.goOn();
          this.#end({ type: "error", error: { code, message } });
          return { code, message };
        }
        if (clock.monotonicMs() >= until_ms) return { code, message };
        await clock.sleep(limits.hand_over_pause_ms);
      }
    }
  }

  /** Until it is known, somebody else has settled it, or its grace time has ended it. */
  async #keepAsking(last: Parameters<Destination["go"]>[1]): Promise<void> {
    const { stream, clock } = this.#options;
    while (this.#state === "held" && !stream.hasEnded) {
      await this.#tellGo(last, 0);
      if (this.#state === "held") await clock.sleep(limits.hand_over_pause_ms);
    }
    if (this.#state === "held") this.#end({ type: "ended" });
  }

  #outcome(
    outcome: HandOverResponse["outcome"],
    gap_tokens: number,
    handed_over_ms: number,
    error: WireError | null,
  ): HandOverResponse {
    const completion_tokens = this.#options.stream.nextIndex;
    return { outcome, completion_tokens, gap_tokens, handed_over_ms, error };
  }

  #tell(event: MoveEvent): void {
    if (this.#state === "copying") this.#options.onEvent(event);
  }

  #end(event: MoveEvent): void {
    this.#state = "over";
    this.#ended.resolve();
    this.#approach.stop();
    if (event.type !== "handed_over") void this.#drop();
    this.#options.onEvent(event);
  }

  /** The destination frees what it holds; one that does not hear it lets go by itself after a while. */
  async #drop(): Promise<void> {
    const { stream, destination, request } = this.#options;
    if (!this.#approach.hasOpened) return;
    await destination.drop(stream.record().generation_id, request.epoch).catch(() => undefined);
  }
}

const stoppedError: WireError = {
  code: "cancelled",
  message: "The move was given up; the generation goes on.",
};
