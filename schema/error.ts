/** The one error class for failures of operation, and its form on the wire. Defects throw ordinary errors. */
import { z } from "zod";
import { codes, type ErrorCode, errorCodes } from "./codes.ts";

export interface SllmErrorDetails {
  /** Field of the request the error is about, as a path ("messages.0.content"). */
  readonly param?: string | undefined;
  /** When a retry is worth while, in milliseconds from now. */
  readonly retry_after_ms?: number | undefined;
  /** Of a worker that is away: it was asked whether it lives, and did not answer. Never on the wire. */
  readonly is_silent?: boolean;
  readonly cause?: unknown;
}

/** A failure with a code of codes.ts. `message` is shown to the client: no secrets, no prompts, no paths of ours. */
export class SllmError extends Error {
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly retry_after_ms: number | undefined;
  readonly is_silent: boolean;

  constructor(code: ErrorCode, message: string, details: SllmErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "SllmError";
    this.code = code;
    this.param = details.param;
    this.retry_after_ms = details.retry_after_ms;
    this.is_silent = details.is_silent === true;
  }

  get http_status(): number {
    return codes[this.code].http_status;
  }

  get retryable(): boolean {
    return codes[this.code].retryable;
  }
}

/** OpenAI's error envelope, with a hint and whether a retry helps beside the known fields. */
export const errorBody = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
    hint: z.string().optional(),
    retryable: z.boolean().optional(),
    request_id: z.string().optional(),
  }),
});
export type ErrorBody = z.infer<typeof errorBody>;

/** A failure inside an event or a row: code and message, nothing else crosses process borders. */
export const wireError = z.strictObject({ code: z.enum(errorCodes), message: z.string() });
export type WireError = z.infer<typeof wireError>;

/** Turns anything thrown into an SllmError; what is not one becomes `internal` with its cause kept. */
export function toSllmError(thrown: unknown): SllmError {
  if (thrown instanceof SllmError) return thrown;
  return new SllmError("internal", "An unexpected error occurred.", { cause: thrown });
}

/** The envelope of an error as sent to clients. */
export function toErrorBody(error: SllmError, request_id?: string): ErrorBody {
  const row = codes[error.code];
  return {
    error: {
      message: error.message,
      type: row.type,
      param: error.param ?? null,
      code: error.code,
      hint: row.hint,
      retryable: row.retryable,
      ...(request_id === undefined ? {} : { request_id }),
    },
  };
}

/** First problem of a failed parse as an `invalid_request` that names the field. */
export function fromZodError(error: z.ZodError, where = "body"): SllmError {
  const issue = error.issues[0];
  const path = issue?.path.map(String).join(".") ?? "";
  const param = path === "" ? undefined : path;
  const message = `${param ?? where}: ${issue?.message ?? "invalid"}`;
  return new SllmError("invalid_request", message, { param, cause: error });
}

/** Parses with a zod schema or throws `invalid_request` naming the field. */
export function parseOrThrow<S extends z.ZodType>(schema: S, value: unknown, where = "body"): z.output<S> {
  const result = schema.safeParse(value);
  if (!result.success) throw fromZodError(result.error, where);
  return result.data;
}
