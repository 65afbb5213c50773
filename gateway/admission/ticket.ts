/** One request's place in the queue: whether it stands in line, what it waits for, and how it is woken when its turn comes. */
import type { GenerationId, ModelId } from "../../schema/ids.ts";
import type { Priority } from "../../schema/vocab.ts";

/** All times on the monotonic clock. */
export interface Waiting {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  /** Name of the API key it came with. */
  readonly tenant: string;
  readonly priority: Priority;
  readonly arrived_ms: number;
  readonly deadline_ms: number;
}

/** What a request waits for, as the last decision said. */
export interface WaitState {
  readonly state: "queued" | "loading";
  readonly reason: string;
  /** When it is expected to be served; null for unknown. */
  readonly due_ms: number | null;
}

/** What a ticket tells and asks its queue. */
interface Queue {
  positionOf(ticket: Ticket): number;
  stands(ticket: Ticket, isStanding: boolean): void;
  steppedOut(ticket: Ticket): void;
  leave(ticket: Ticket, now_ms: number): void;
}

/** One request's place in the queue. */
export class Ticket {
  readonly request: Waiting;
  /** Its place among tenants; see fair-order.ts. */
  readonly tag: number;
  readonly number: number;
  readonly #queue: Queue;
  #state: WaitState | null = null;
  #inLine = false;
  /** Resolves when it is its turn; null while it looks for an instance. */
  #turn: Promise<void> | null = null;
  #wake = () => {};

  constructor(request: Waiting, tag: number, number: number, queue: Queue) {
    this.request = request;
    this.tag = tag;
    this.number = number;
    this.#queue = queue;
  }

  get priority(): Priority {
    return this.request.priority;
  }

  get arrived_ms(): number {
    return this.request.arrived_ms;
  }

  /** null until it is clear that the request has to wait. */
  get state(): WaitState | null {
    return this.#state;
  }

  get position(): number {
    return this.#queue.positionOf(this);
  }

  /** It waits and has no instance. */
  get isInLine(): boolean {
    return this.#inLine;
  }

  note(state: WaitState): void {
    this.#state = state;
  }

  standInLine(): Promise<void> {
    this.#stand(true);
    this.#turn ??= new Promise((resolve) => {
      this.#wake = resolve;
    });
    return this.#turn;
  }

  /** Its turn; without effect while it looks for an instance already. */
  wake(): void {
    this.#wake();
    this.#turn = null;
  }

  /** It has an instance, loading or running: whoever stands behind it is next. */
  stepOut(): void {
    this.#stand(false);
    this.#queue.steppedOut(this);
  }

  /** The second and later calls do nothing. */
  leave(now_ms: number): void {
    this.#stand(false);
    this.#queue.leave(this, now_ms);
  }

  #stand(isStanding: boolean): void {
    if (this.#inLine === isStanding) return;
    this.#inLine = isStanding;
    this.#queue.stands(this, isStanding);
  }
}
