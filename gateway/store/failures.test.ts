import { expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";
import { callDatabase } from "./failures.ts";

/** A clock whose sleeps end when the test says so, or when they are aborted. */
function handClock(): Pick<Clock, "sleep"> & { ring: () => void; asked: number[] } {
  const waiting: (() => void)[] = [];
  const asked: number[] = [];
  return {
    asked,
    ring: () => {
      for (const wake of waiting) wake();
    },
    sleep: (delay_ms, signal) =>
      new Promise((resolve) => {
        asked.push(delay_ms);
        waiting.push(resolve);
        signal?.addEventListener("abort", () => resolve());
      }),
  };
}

const failure = (code: string) => Object.assign(new Error("from the driver"), { code });
const wrapped = (code: string) => new Error("from drizzle", { cause: failure(code) });

test("an answer passes through", async () => {
  expect(await callDatabase(handClock(), async () => 7)).toBe(7);
});

test.each([
  "ECONNREFUSED",
  "CONNECTION_CLOSED",
  "CONNECT_TIMEOUT",
  "ENOENT",
  "08006",
  "57P01",
  "53300",
  "28P01",
])("%s means that the database cannot be used", async (code) => {
  const call = callDatabase(handClock(), () => Promise.reject(wrapped(code)));
  await expect(call).rejects.toMatchObject({
    code: "state_unavailable",
    message: expect.stringContaining(code),
  });
});

test("what the operation refuses and what is a defect is thrown as it is", async () => {
  const refusal = new SllmError("model_exists", "there");
  await expect(callDatabase(handClock(), () => Promise.reject(refusal))).rejects.toBe(refusal);
  const defect = wrapped("42601");
  await expect(callDatabase(handClock(), () => Promise.reject(defect))).rejects.toBe(defect);
});

test.each(["42P01", "42703"])("%s means that the database was not migrated", async (code) => {
  const call = callDatabase(handClock(), () => Promise.reject(wrapped(code)));
  await expect(call).rejects.toMatchObject({ code: "migrations_missing" });
});

test("a text that cannot be stored is the request's fault", async () => {
  const call = callDatabase(handClock(), () => Promise.reject(wrapped("22021")));
  await expect(call).rejects.toMatchObject({ code: "invalid_request" });
});

test.each(["40001", "40P01"])(
  "a transaction that lost against another (%s) is run again, thrice at most",
  async (code) => {
    let runs = 0;
    const second = callDatabase(handClock(), async () => {
      runs++;
      if (runs === 1) throw wrapped(code);
      return "done";
    });
    expect(await second).toBe("done");
    expect(runs).toBe(2);

    runs = 0;
    const never = callDatabase(handClock(), async () => {
      runs++;
      throw wrapped(code);
    });
    await expect(never).rejects.toMatchObject({ code: "state_conflict" });
    expect(runs).toBe(3);
  },
);

test("silence for the time of one call means that the database cannot be used", async () => {
  const clock = handClock();
  const call = callDatabase(clock, () => new Promise<never>(() => undefined));
  expect(clock.asked).toEqual([limits.database_call_ms]);
  clock.ring();
  await expect(call).rejects.toMatchObject({ code: "state_unavailable" });
});
