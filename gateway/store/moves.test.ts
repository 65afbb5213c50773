import { expect, test } from "bun:test";
import { instanceMoves, workerMoves } from "../../schema/vocab.ts";
import { assertLegal, statesBefore } from "./moves.ts";

test("a move is legal only from states that all allow it", () => {
  assertLegal("instance", instanceMoves, ["loading", "parked"], "ready");
  expect(() => assertLegal("instance", instanceMoves, ["loading", "gone"], "ready")).toThrow(
    "illegal move of instance: gone -> ready",
  );
});

test("a move from nowhere is a defect", () => {
  expect(() => assertLegal("instance", instanceMoves, [], "gone")).toThrow();
});

test("a state may be reported again or after one that leads to it", () => {
  expect(statesBefore(workerMoves, "lost")).toEqual(["ready", "draining", "lost"]);
  expect(statesBefore(workerMoves, "ready")).toEqual(["ready", "draining", "lost", "gone"]);
});
