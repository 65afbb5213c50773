/** How a command ends when it cannot do what it was asked: exit statuses and the two errors people see. */

/** 0: done. 1: failed. 2: called in a way that makes no sense. 130: interrupted by Ctrl-C. */
export const exitStatus = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** The command was called wrongly; the message names the argument, the dispatcher adds where help is. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The command cannot be done; `advice` says what the reader can do about it. */
export class CommandFailure extends Error {
  override readonly name = "CommandFailure";
  readonly advice: string | undefined;

  constructor(message: string, options: { advice?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.advice = options.advice;
  }
}
