/** What the worker's parts need of the world around them; bound in worker/main, and by tests. */

export interface Clock {
  /** Wall time for records, milliseconds since 1970. */
  wallMs(): number;
  /** For durations and deadlines: never goes back. */
  monotonicMs(): number;
  /** Resolves after the delay, or at once when the signal aborts. Never rejects. */
  sleep(delay_ms: number, signal?: AbortSignal): Promise<void>;
}

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Structured log lines. Fields hold ids, counts and codes; never prompts, texts or secrets. */
export interface Log {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields, cause?: unknown): void;
}

/** A stream of events that one reader takes; ends with null. */
export interface EventReader<T> {
  /** The next event; null when there is none any more. One call at a time. */
  next(): Promise<T | null>;
  /** The reader leaves; a pending `next` resolves with null. */
  close(): void;
}
