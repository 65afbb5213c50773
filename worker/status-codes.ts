/** What a failure of the native library means to the system: its statuses as error codes. */
import type { FailureName, SllmNativeError } from "../native/bun-ffi-helpers/native.ts";
import type { ErrorCode } from "../schema/codes.ts";
import type { WireError } from "../schema/error.ts";

/** Complete by type: a status added to the header does not compile until it has a code here. */
const codeOfFailure: Record<FailureName, ErrorCode> = {
  SLLM_E_INVALID_ARGUMENT: "invalid_request",
  SLLM_E_NOT_FOUND: "not_found",
  SLLM_E_BUFFER_TOO_SMALL: "internal",
  SLLM_E_OVERLOADED: "overloaded",
  SLLM_E_CLOSED: "engine_failed",
  SLLM_E_OUT_OF_MEMORY: "insufficient_memory",
  SLLM_E_WRONG_STATE: "model_loading",
  SLLM_E_IO: "io_error",
  SLLM_E_CORRUPT: "checkpoint_invalid",
  SLLM_E_LIBRARY_MISSING: "native_unavailable",
  SLLM_E_LIBRARY_VERSION: "native_unavailable",
  SLLM_E_MODEL_UNSUPPORTED: "checkpoint_unsupported",
  SLLM_E_CONTEXT_OVERFLOW: "context_length_exceeded",
  SLLM_E_CANCELLED: "cancelled",
  SLLM_E_ENGINE: "engine_failed",
  SLLM_E_INTERNAL: "internal",
};

/** While a model is started nobody's request is at fault: these say only that the start failed. */
const loadFailures: ReadonlySet<FailureName> = new Set<FailureName>([
  "SLLM_E_INVALID_ARGUMENT",
  "SLLM_E_NOT_FOUND",
  "SLLM_E_CLOSED",
  "SLLM_E_WRONG_STATE",
  "SLLM_E_CANCELLED",
  "SLLM_E_ENGINE",
  "SLLM_E_INTERNAL",
]);

/** Code of a failure that ended a request. */
export function requestErrorCode(failure: FailureName): ErrorCode {
  return codeOfFailure[failure];
}

/** Code of a failure that ended the start of a model. */
export function loadErrorCode(failure: FailureName): ErrorCode {
  return loadFailures.has(failure) ? "model_load_failed" : codeOfFailure[failure];
}

/** A refused call as it crosses process borders. */
export function toWireError(error: SllmNativeError): WireError {
  return { code: requestErrorCode(error.status_name), message: error.message };
}
