import { expect, test } from "bun:test";
import { createClientSearch } from "./clients.ts";

test("a key tells its tenant and how urgent its requests may be; one without a name has its place", () => {
  const find = createClientSearch([
    "chat/high:a-key-of-the-chat",
    "a-key-without-name",
    "batch:a-key-of-the-batch",
  ]);
  expect(find("Bearer a-key-of-the-chat")).toEqual({ tenant: "chat", highest_priority: "high" });
  expect(find("Bearer a-key-without-name")).toEqual({ tenant: "key-2", highest_priority: "normal" });
  expect(find("Bearer a-key-of-the-batch")).toEqual({ tenant: "batch", highest_priority: "normal" });
  expect(find("Bearer chat/high:a-key-of-the-chat")).toBeNull();
  expect(find(undefined)).toBeNull();
});
