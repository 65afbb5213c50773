/** How rows of generations are gathered and written. */
import { expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import type { GenerationMove, NewGeneration } from "../ports.ts";
import { GenerationRecords } from "./records.ts";

/** Notes the statements; rows whose model is "bad" make theirs fail. */
class Rows {
  readonly statements: (readonly string[])[] = [];
  readonly written: string[] = [];
  readonly moved: string[] = [];
  onInsert = () => {};

  async insertGenerations(begun: readonly NewGeneration[]): Promise<void> {
    this.onInsert();
    this.statements.push(begun.map((row) => row.generation_id));
    if (begun.some((row) => row.model_id === "bad")) throw new Error("a value is out of range");
    this.written.push(...begun.map((row) => row.generation_id));
  }

  async moveGenerations(moves: readonly GenerationMove[]): Promise<string[]> {
    this.statements.push(moves.map((move) => move.generation_id));
    const ids = moves.map((move) => move.generation_id).filter((id) => this.written.includes(id));
    this.moved.push(...ids);
    return ids;
  }
}

function open() {
  const store = new Rows();
  const clock = new ManualClock();
  const log: string[] = [];
  const note = (event: string, fields: object = {}) => log.push(`${event} ${JSON.stringify(fields)}`);
  const records = new GenerationRecords({
    ...{ store, clock },
    explanations: { of: () => null },
    log: { info: note, warn: note, error: note },
  });
  return { store, clock, log, records };
}

const begun = (generation_id: string, model_id = "m"): NewGeneration => ({
  ...{ generation_id, model_id },
  created_at_ms: 0,
});
const ended = (generation_id: string): GenerationMove => ({
  ...{ generation_id, reason: "done" },
  from: ["queued"],
  to: "finished",
});

test("what comes within a moment is written together, beginnings first", async () => {
  const { store, clock, records } = open();
  for (const id of ["a", "b", "c"]) records.begin(begun(id));
  records.end(ended("b"));
  await settle();
  expect(store.statements).toEqual([]);
  await clock.advance(limits.record_gather_ms);
  expect(store.statements).toEqual([["a", "b", "c"], ["b"]]);
  records.end(ended("a"));
  await clock.advance(limits.record_gather_ms);
  expect(store.statements.at(-1)).toEqual(["a"]);
  expect(clock.sleeping).toBe(0);
});

test("an end that comes while its beginning is being written follows it", async () => {
  const { store, clock, records, log } = open();
  records.begin(begun("a"));
  store.onInsert = () => records.end(ended("a"));
  await clock.advance(2 * limits.record_gather_ms);
  expect(store.moved).toEqual(["a"]);
  expect(log).toEqual([]);
});

test("many are written in parts, and a bad row takes no other with it", async () => {
  const { store, clock, records, log } = open();
  const count = limits.record_batch + 10;
  for (let i = 0; i < count; i++) records.begin(begun(`g${i}`, i === 3 ? "bad" : "m"));
  await clock.advance(limits.record_gather_ms);
  expect(store.written).toHaveLength(count - 1);
  expect(store.statements.map((rows) => rows.length).filter((length) => length > 1)).toEqual([
    limits.record_batch,
    10,
  ]);
  expect(log).toEqual([`generation_row_failed {"generation_id":"g3"}`]);
});

test("beyond the bound rows are dropped, and an end without its row is told", async () => {
  const { store, clock, records, log } = open();
  for (let i = 0; i <= limits.waiting_requests; i++) records.begin(begun(`g${i}`));
  expect(log).toEqual([`generation_row_dropped {"generation_id":"g${limits.waiting_requests}"}`]);
  await clock.advance(limits.record_gather_ms);
  expect(store.written).toHaveLength(limits.waiting_requests);
  records.end(ended(`g${limits.waiting_requests}`));
  await clock.advance(limits.record_gather_ms);
  expect(log.at(-1)).toStartWith("generation_row_missing");
});

test("closing writes at once what is there", async () => {
  const { store, records } = open();
  records.begin(begun("a"));
  records.end(ended("a"));
  await records.close();
  expect(store.moved).toEqual(["a"]);
});
