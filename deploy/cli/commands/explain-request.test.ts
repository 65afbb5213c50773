/** How requests are explained. */
import { expect, test } from "bun:test";
import type { ExplainedRequest } from "../../../schema/api/admin.ts";
import { formatRequest } from "./explain-request.ts";

const request: ExplainedRequest = {
  generation_id: "0".repeat(32),
  model_id: "llama",
  state: "finished",
  worker_id: "w-1",
  instance_id: "i-1",
  epoch: 1,
  owner: null,
  cold_start: true,
  prompt_tokens: 5,
  completion_tokens: 2,
  finish_reason: "stop",
  error: null,
  timeline_ms: {
    ...{ queue: 1, process_start: 0, disk_read: 400, model_build: 0, resume: 0, prefill: 9, first_token: 2 },
    total: 450,
  },
  created_at: "2026-01-01T00:00:00.000Z",
  finished_at: "2026-01-01T00:00:01.000Z",
  decisions: [
    {
      ...{ at: "2026-01-01T00:00:00.000Z", times: 1, action: "start", worker_id: "w-1", device_id: "cpu" },
      ...{ instance_id: null, tier: "disk", estimate_ms: 430, reason: "starts soonest there, from disk" },
      losers: [
        {
          ...{ choice: "hold", worker_id: "w-2", device_id: "cpu", instance_id: null, estimate_ms: 900 },
          why: "5 bytes are held by instances in use",
        },
      ],
    },
  ],
};

test("a request is told with its times, the decision, what was expected, and what lost", () => {
  expect(formatRequest(request).split("\n")).toEqual([
    "llama: finished",
    `${"0".repeat(32)}, 2026-01-01T00:00:00.000Z; ran after a start at i-1 on w-1`,
    "first token after 450.0 ms: queue 1.0, disk_read 400.0, prefill 9.0, first_token 2.0, 430.0 ms were expected until it was served",
    "",
    "1. start from disk at w-1/cpu, expected after 430.0 ms: starts soonest there, from disk",
    "INSTEAD OF  WHERE       MS  WHY NOT",
    "hold        w-2/cpu  900.0  5 bytes are held by instances in use",
  ]);
});

test("a request of another gateway says that its decisions are not known", () => {
  expect(formatRequest({ ...request, decisions: null })).toContain("are not written yet");
});
