/** Failures of the file system as errors of the system: each says in its code what to change. */
import type { ErrorCode } from "../../../schema/codes.ts";
import { SllmError } from "../../../schema/error.ts";

const codeOfReason: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "disk_full",
  EDQUOT: "disk_full",
  EROFS: "store_read_only",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
};

const knownReasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EISDIR: "it is a directory",
  ENOTDIR: "it is no directory",
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  EROFS: "the file system is read-only",
};

/** Text of a system error such as ENOENT, without the path that Node puts into its message. */
export function systemReason(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const code = systemCode(thrown);
  return code === null ? thrown.message : (knownReasons[code] ?? code);
}

/** Name of a system error, e.g. ENOENT; null for anything else. */
export function systemCode(thrown: unknown): string | null {
  return thrown instanceof Error && "code" in thrown ? String(thrown.code) : null;
}

/** True when the file or folder is not there. */
export function isMissing(thrown: unknown): boolean {
  const code = systemCode(thrown);
  return code === "ENOENT" || code === "ENOTDIR";
}

/**
 * The error for a failed call, e.g. `systemFailure("Cannot open weights.bin", cause)`: `disk_full`, `store_read_only`,
 * `permission_denied`, and `io_error` for everything else. An SllmError passes as it is.
 */
export function systemFailure(doing: string, cause: unknown): SllmError {
  if (cause instanceof SllmError) return cause;
  const code = codeOfReason[systemCode(cause) ?? ""] ?? "io_error";
  return new SllmError(code, `${doing}: ${systemReason(cause)}.`, { cause });
}
