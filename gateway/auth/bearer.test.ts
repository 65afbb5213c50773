import { expect, test } from "bun:test";
import { createBearerCheck, createBearerSearch } from "./bearer.ts";

test("a bearer token is accepted when it is one of the given, whole and exact", () => {
  const check = createBearerCheck(["first-token-0000", "second-token-000"]);
  expect(check("Bearer first-token-0000")).toBe(true);
  expect(check("bearer second-token-000")).toBe(true);
  for (const header of [
    undefined,
    "",
    "Bearer",
    "Bearer ",
    "first-token-0000",
    "Basic first-token-0000",
    "Bearer first-token-000",
    "Bearer first-token-00000",
    "Bearer first-token-0000 more",
  ]) {
    expect(check(header)).toBe(false);
  }
});

test("without accepted tokens nothing is accepted", () => {
  expect(createBearerCheck([])("Bearer anything")).toBe(false);
  expect(createBearerCheck([])(undefined)).toBe(false);
});

test("a search says which token it was, the later of equal ones", () => {
  const search = createBearerSearch(["first-token-0000", "second-token-000", "second-token-000"]);
  expect(search("Bearer first-token-0000")).toBe(0);
  expect(search("Bearer second-token-000")).toBe(2);
  expect(search("Bearer third-token-0000")).toBeNull();
});
