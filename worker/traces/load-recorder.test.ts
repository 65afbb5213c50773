import { expect, test } from "bun:test";
import type { NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import { loadTrace } from "../../schema/cluster/loads.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { begunLoad } from "../../test/support/native-load.ts";
import { LoadRecorder } from "./load-recorder.ts";

const request = { instance_id: "i-0000000000000001", model_id: "m", checkpoint: "c".repeat(64) };
const read: NativeLoadStatus = {
  ...begunLoad,
  state: "ready",
  read_ms: 12,
  trace: { ...begunLoad.trace, direct_bytes: 3072, cached_bytes: 1024, rereads: 1, digest_ms: 2 },
};

test("a trace has its stages by the time since the request, and what came from where", async () => {
  const clock = new ManualClock();
  await clock.advance(1_000);
  const recorder = new LoadRecorder(clock);
  recorder.begin("lookup");
  await clock.advance(2);
  recorder.end("lookup");
  recorder.begin("read", "lookup");
  recorder.begin("model_build", "lookup");
  await clock.advance(20);
  recorder.noteBuilt({ model_build_ms: 8, weights_wait_ms: 0 });
  recorder.noteRead({ was_begun: true, status: () => read }, false);
  const trace = recorder.finish(request, 4096, { outcome: "ready", error: null });
  expect(loadTrace.parse(trace)).toMatchObject({
    ...request,
    total_ms: 22,
    source: "disk",
    bytes: { weights: 4096, direct: 3072, cached: 1024, buffered: 0, uploaded: 0 },
    read: { rereads: 1, digest_ms: 2 },
    stages: [
      { stage: "lookup", start_ms: 0, end_ms: 2, after: [] },
      { stage: "read", start_ms: 2, end_ms: 14, after: ["lookup"] },
      { stage: "model_build", start_ms: 2, end_ms: 10, after: ["lookup"] },
    ],
  });
});

test("stages under way when a load fails end with it, and conditions that never were are left out", async () => {
  const clock = new ManualClock();
  const recorder = new LoadRecorder(clock);
  recorder.begin("process", "lookup");
  await clock.advance(7);
  const error = { code: "model_load_failed", message: "no" } as const;
  const trace = recorder.finish(request, 4096, { outcome: "failed", error });
  expect(trace).toMatchObject({
    outcome: "failed",
    error,
    source: null,
    stages: [{ stage: "process", start_ms: 0, end_ms: 7, after: [] }],
    critical_path: [{ stage: "process", ms: 7 }],
  });
});

test("who shared the read of another, or found the copy in memory, read nothing", () => {
  const sourceOf = (was_present: boolean) => {
    const recorder = new LoadRecorder(new ManualClock());
    recorder.noteRead({ was_begun: false, status: () => read }, was_present);
    const { source, bytes } = recorder.finish(request, 4096, { outcome: "ready", error: null });
    return { source, disk: bytes.direct + bytes.cached };
  };
  expect(sourceOf(true)).toEqual({ source: "host", disk: 0 });
  expect(sourceOf(false)).toEqual({ source: "shared", disk: 0 });
});
