import { expect, test } from "bun:test";
import { parseApiKey } from "./api-key.ts";

const token = "a-key-of-the-tests";

test("a key stands alone, with its tenant, or with its tenant's highest priority", () => {
  expect(parseApiKey(token)).toEqual({ tenant: null, highest_priority: "normal", token });
  expect(parseApiKey(`team-a:${token}`)).toEqual({ tenant: "team-a", highest_priority: "normal", token });
  expect(parseApiKey(`batch/low:${token}`)).toEqual({ tenant: "batch", highest_priority: "low", token });
  expect(parseApiKey(`chat/high:${token}:x`)).toMatchObject({ tenant: "chat", token: `${token}:x` });
});

test("what cannot be a key is refused with the reason and without the key", () => {
  for (const [text, reason] of [
    ["short", "16 characters"],
    ["team:short", "16 characters"],
    [`team/urgent:${token}`, "'urgent' is no priority"],
    [`${"t".repeat(65)}:${token}`, "at most 64"],
  ] as const) {
    expect(() => parseApiKey(text)).toThrow(reason);
  }
});
