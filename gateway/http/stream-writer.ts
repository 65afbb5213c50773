/** Writes text into a response body and says when its reader is slow, gone, or has heard nothing for a while. */
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";

const encoder = new TextEncoder();

export class StreamWriter {
  /** The body of the response. */
  readonly body: ReadableStream<Uint8Array>;
  readonly #clock: Pick<Clock, "monotonicMs">;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  #resume: (() => void) | null = null;
  #lastWrite_ms: number;

  /** `onLeave` is called when the reader goes away before the end. */
  constructor(clock: Pick<Clock, "monotonicMs">, onLeave: () => void) {
    this.#clock = clock;
    this.#lastWrite_ms = clock.monotonicMs();
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#wake(),
        cancel: () => {
          this.#controller = null;
          this.#wake();
          onLeave();
        },
      },
      new ByteLengthQueuingStrategy({ highWaterMark: limits.stream_buffer_bytes }),
    );
  }

  get isOpen(): boolean {
    return this.#controller !== null;
  }

  /** False while the buffer holds as much as it may. */
  get hasRoom(): boolean {
    return (this.#controller?.desiredSize ?? 0) > 0;
  }

  get silent_ms(): number {
    return this.#clock.monotonicMs() - this.#lastWrite_ms;
  }

  /** Queues text; nothing happens for "" or once the reader is gone. */
  write(text: string): void {
    if (text === "" || this.#controller === null) return;
    this.#controller.enqueue(encoder.encode(text));
    this.#lastWrite_ms = this.#clock.monotonicMs();
  }

  /** Resolves when the reader has made room or is gone. One waiter at a time. */
  async room(): Promise<void> {
    while (this.isOpen && !this.hasRoom) {
      await new Promise<void>((resolve) => {
        this.#resume = resolve;
      });
    }
  }

  /** Ends the body after what is queued. */
  close(): void {
    this.#controller?.close();
    this.#controller = null;
    this.#wake();
  }

  #wake(): void {
    this.#resume?.();
    this.#resume = null;
  }
}
