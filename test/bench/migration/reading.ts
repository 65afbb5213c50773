/** One stream of the bench with its client. */
import type { OpenStream, ReadAnswer } from "../../support/chat-streams.ts";
import { eventually } from "../../support/eventually.ts";

/** A stream that is read all the time, so that its gaps are those of a client. */
export class Reading {
  readonly stream: OpenStream;
  readonly seed: number;
  readonly read: Promise<ReadAnswer>;

  constructor(stream: OpenStream, seed: number) {
    this.stream = stream;
    this.seed = seed;
    this.read = stream.read();
    this.read.catch(() => undefined);
  }

  async until(tokens: number): Promise<void> {
    await eventually(
      `${tokens} tokens`,
      () => this.stream.isDone || this.stream.lastIndex + 1 >= tokens,
      180_000,
    );
  }
}
