import { expect, test } from "bun:test";
import { SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { SllmError } from "../../schema/error.ts";
import { engineEndError, engineError, readError } from "./load-errors.ts";

const directory = "/srv/data/checkpoints/abc";

test("a damaged file is named without the folder it lies in", () => {
  const failure = {
    status_name: "SLLM_E_CORRUPT",
    message: `${directory}/weights.bin: bad bytes at offset 4096`,
  };
  expect(readError(failure, directory)).toEqual({
    code: "checkpoint_invalid",
    message: "weights.bin: bad bytes at offset 4096",
  });
  expect(engineError({ code: "io_error", message: `${directory}/header.gguf: no` }, directory).message).toBe(
    "header.gguf: no",
  );
});

test("errors of the system keep their code, those of the library get theirs, others only say that the load failed", () => {
  expect(readError(new SllmError("checkpoint_invalid", "bad")).code).toBe("checkpoint_invalid");
  expect(readError(new SllmNativeError("sllm_store_load", -6, "no memory")).code).toBe("insufficient_memory");
  expect(readError(new SllmNativeError("sllm_store_load", -1, "odd")).code).toBe("model_load_failed");
  expect(readError(new TypeError("defect"))).toEqual({ code: "model_load_failed", message: "defect" });
});

test("an engine's end is told with its last words", () => {
  const last_lines = Array.from({ length: 20 }, (_, i) => `line ${i}`);
  const error = engineEndError({ reason: "signal SIGSEGV", last_lines }, false);
  expect(error.code).toBe("engine_failed");
  expect(error.message).toContain("signal SIGSEGV");
  expect(error.message).toContain("line 19");
  expect(error.message).not.toContain("line 1\n");
  expect(engineEndError({ reason: "status 1", last_lines: [] }, true)).toEqual({
    code: "model_load_failed",
    message: "The engine process ended with status 1.",
  });
});

test("an engine that something outside has killed says so; one that crashed has failed", () => {
  const end = (reason: string, wasLoading: boolean) =>
    engineEndError({ reason, last_lines: [] }, wasLoading).code;
  for (const wasLoading of [true, false]) {
    expect(end("signal SIGKILL", wasLoading)).toBe("engine_killed");
    expect(end("signal SIGTERM", wasLoading)).toBe("engine_killed");
  }
  expect(end("signal SIGSEGV", true)).toBe("model_load_failed");
  expect(end("signal SIGABRT", false)).toBe("engine_failed");
});
