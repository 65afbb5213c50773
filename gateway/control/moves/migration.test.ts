import { expect, test } from "bun:test";
import type { HandOverResponse } from "../../../schema/cluster/moves.ts";
import { type MigrationState, migrationMoves } from "../../../schema/vocab.ts";
import {
  advance,
  dueIn,
  foundMigration,
  hasEnded,
  type Migration,
  type MigrationInput,
  newMigration,
} from "./migration.ts";

const progress = { rounds: 3, tokens: 40, bytes: 0 };
const error = { code: "worker_unavailable", message: "gone" } as const;
const response = (outcome: HandOverResponse["outcome"]): HandOverResponse => ({
  ...{ outcome, completion_tokens: 40, gap_tokens: 1, handed_over_ms: 4 },
  error: outcome === "refused" || outcome === "unknown" ? error : null,
});
const after = (inputs: readonly MigrationInput[], from = newMigration(3)): Migration =>
  inputs.reduce(advance, from);
const loaded: MigrationInput[] = [{ type: "loaded" }];
const ready: MigrationInput[] = [...loaded, { type: "round", progress }, { type: "ready", progress }];
const won: MigrationInput[] = [...ready, { type: "won", epoch: 4 }];

test("an undisturbed move loads, copies, wins the epoch and hands over", () => {
  expect(dueIn(newMigration(3))).toEqual({ kind: "load" });
  expect(dueIn(after(loaded))).toEqual({ kind: "copy", epoch: 4 });
  expect(dueIn(after(ready))).toEqual({ kind: "claim", seen_epoch: 3 });
  expect(dueIn(after(won))).toEqual({ kind: "hand_over", epoch: 4 });
  const end = after([...won, { type: "handed_over", response: response("moved") }]);
  expect(end).toMatchObject({ state: "finished", progress, error: null });
  expect(dueIn(end)).toEqual({ kind: "end" });
});

test("a generation that ends first drops its move at every step", () => {
  expect(after([...loaded, { type: "ended" }]).state).toBe("dropped");
  expect(after([...won, { type: "handed_over", response: response("ended") }]).state).toBe("dropped");
});

test("what the destination refuses goes on at the source, in an epoch of its own", () => {
  const refused = after([...won, { type: "handed_over", response: response("refused") }]);
  expect(dueIn(refused)).toEqual({ kind: "claim", seen_epoch: 4 });
  const end = after([{ type: "won", epoch: 5 }, { type: "fenced" }, { type: "went_on" }], refused);
  expect(end).toMatchObject({ state: "failed", error });
  expect(after([...ready, { type: "lost", error }])).toMatchObject({ state: "failed", error });
});

test("of a hand-over that nobody knows the end of, the destination is asked first", () => {
  for (const input of [
    { type: "handed_over", response: response("unknown") },
    { type: "silent", error },
  ] satisfies MigrationInput[]) {
    const unsure = after([...won, input]);
    expect(dueIn(unsure)).toEqual({ kind: "ask", epoch: 4 });
    expect(advance(unsure, { type: "found", isThere: true }).state).toBe("finished");
  }
});

test("when the destination has it not, it is fenced with the next epoch before the source goes on", () => {
  for (const isThere of [false, null]) {
    const found = after([...won, { type: "silent", error }, { type: "found", isThere }]);
    expect(dueIn(found)).toEqual({ kind: "claim", seen_epoch: 4 });
    const claimed = advance(found, { type: "won", epoch: 5 });
    expect(dueIn(claimed)).toEqual({ kind: "fence", epoch: 5 });
    const fenced = advance(claimed, { type: "fenced" });
    expect(dueIn(fenced)).toEqual({ kind: "go_on", epoch: 5 });
    expect(advance(fenced, { type: "went_on" })).toMatchObject({ state: "failed", error });
  }
});

test("from the row of a gateway that is gone any other ends the move, or finds out what became of it", () => {
  for (const state of ["planned", "loading", "copying"] satisfies MigrationState[]) {
    expect(foundMigration(state, null)).toMatchObject({ state: "failed" });
  }
  const found = foundMigration("handing_over", 4);
  expect(dueIn(found)).toEqual({ kind: "ask", epoch: 4 });
  expect(advance(found, { type: "found", isThere: true }).state).toBe("finished");
  expect(foundMigration("finished", 4).state).toBe("finished");
});

test("whatever comes, the states of the row take legal steps only, and every path ends", () => {
  const answers: Record<string, readonly MigrationInput[]> = {
    load: [{ type: "loaded" }, { type: "given_up", error }],
    copy: [{ type: "ready", progress }, { type: "ended" }, { type: "given_up", error }],
    claim: [
      { type: "won", epoch: 0 },
      { type: "lost", error },
      { type: "given_up", error },
    ],
    hand_over: [
      ...(["moved", "ended", "refused", "unknown"] as const).map(
        (outcome): MigrationInput => ({ type: "handed_over", response: response(outcome) }),
      ),
      { type: "silent", error },
    ],
    ask: [true, false, null].map((isThere): MigrationInput => ({ type: "found", isThere })),
    fence: [{ type: "fenced" }],
    go_on: [{ type: "went_on" }],
  };
  let ends = 0;
  const explore = (migration: Migration, depth: number): void => {
    const due = dueIn(migration);
    if (due.kind === "end") {
      ends += 1;
      return;
    }
    if (depth === 0) throw new Error("a path without an end");
    for (const answer of answers[due.kind] ?? []) {
      const input =
        answer.type === "won" && due.kind === "claim" ? { ...answer, epoch: due.seen_epoch + 1 } : answer;
      const next = advance(migration, input);
      const legal: readonly MigrationState[] = migrationMoves[migration.state];
      if (next.state !== migration.state && migration.state !== "planned")
        expect(legal).toContain(next.state);
      explore(next, depth - 1);
    }
  };
  explore(newMigration(1), 12);
  explore(foundMigration("handing_over", 7), 12);
  expect(ends).toBeGreaterThan(20);
  expect(() => advance(after([{ type: "loaded" }, { type: "ended" }]), { type: "loaded" })).toThrow();
  expect(hasEnded(newMigration(1))).toBe(false);
});
