/** The order of a line: priorities with a bound on their power, and tenants that share. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { priorities } from "../../schema/vocab.ts";
import { checkProperty } from "../../test/support/property.ts";
import { compareInLine, FairTags, type InLine } from "./fair-order.ts";

const promote_ms = 10_000;
const someone: InLine = { priority: "normal", arrived_ms: 0, tag: 0, number: 0 };
const isFirst = (a: Partial<InLine>, b: Partial<InLine>, now_ms = 0) =>
  compareInLine({ ...someone, ...a }, { ...someone, ...b, number: 1 }, now_ms, promote_ms) < 0;

describe("priorities", () => {
  test("the higher one goes first, whoever came first", () => {
    expect(isFirst({ priority: "high", arrived_ms: 5, tag: 9 }, { priority: "normal" }, 5)).toBe(true);
    expect(isFirst({ priority: "low" }, { priority: "normal", arrived_ms: 5, tag: 9 }, 5)).toBe(false);
  });

  test("who has waited for the bound counts one higher, and no more than the highest", () => {
    const fresh = { priority: "normal", arrived_ms: promote_ms, tag: 1 } as const;
    expect(isFirst({ priority: "low" }, fresh, promote_ms - 1)).toBe(false);
    expect(isFirst({ priority: "low" }, fresh, promote_ms)).toBe(true);
    const high = { priority: "high", arrived_ms: 0, tag: 0 } as const;
    expect(isFirst({ priority: "high", tag: 1 }, high, 100 * promote_ms)).toBe(false);
  });
});

/** Tenants by the order in which their requests arrive; all wait before the first is served. */
function served(arrivals: readonly string[]): string[] {
  const tags = new FairTags();
  const line = arrivals.map((tenant, number) => ({
    tenant,
    inLine: { ...someone, tag: tags.next(tenant), number },
  }));
  line.sort((a, b) => compareInLine(a.inLine, b.inLine, 0, promote_ms));
  return line.map(({ tenant }) => tenant);
}

describe("tenants", () => {
  test("one request of another goes after the first of a crowd, not after the crowd", () => {
    expect(served(["a", "a", "a", "a", "b"])).toEqual(["a", "b", "a", "a", "a"]);
  });

  test("whoever was idle has no claim to what was served meanwhile", () => {
    const tags = new FairTags();
    for (let i = 0; i < 100; i++) tags.served(tags.next("a"));
    const [late, later] = [tags.next("b"), tags.next("b")];
    expect(tags.next("a")).toBeLessThanOrEqual(later);
    expect(late).toBe(99);
  });

  test("as long as both wait, neither is ahead of the other by more than one", () => {
    const arrivals = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 60 });
    checkProperty(arrivals, (order) => {
      const left = new Map<string, number>();
      for (const tenant of order) left.set(tenant, (left.get(tenant) ?? 0) + 1);
      const had = new Map<string, number>();
      for (const tenant of served(order)) {
        had.set(tenant, (had.get(tenant) ?? 0) + 1);
        left.set(tenant, (left.get(tenant) ?? 0) - 1);
        for (const [other, waiting] of left) {
          if (waiting > 0) expect((had.get(tenant) ?? 0) - (had.get(other) ?? 0)).toBeLessThanOrEqual(1);
        }
      }
    });
  });

  test("requests of one tenant keep their order", () => {
    const some = fc.array(fc.tuple(fc.constantFrom("a", "b"), fc.boolean()), { maxLength: 60 });
    checkProperty(some, (steps) => {
      const tags = new FairTags();
      const last = new Map<string, number>();
      for (const [tenant, isServed] of steps) {
        const tag = tags.next(tenant);
        expect(tag).toBeGreaterThanOrEqual(last.get(tenant) ?? 0);
        last.set(tenant, tag);
        if (isServed) tags.served(tag);
      }
    });
  });
});

test("the order is one: whatever the requests, two of them are never both first", () => {
  const some = fc.record<InLine>({
    priority: fc.constantFrom(...priorities),
    arrived_ms: fc.integer({ min: 0, max: 50_000 }),
    tag: fc.integer({ min: 0, max: 5 }),
    number: fc.integer({ min: 0, max: 100 }),
  });
  checkProperty(fc.tuple(some, some, some, fc.integer({ min: 0, max: 100_000 })), ([a, b, c, now_ms]) => {
    const compare = (x: InLine, y: InLine) => Math.sign(compareInLine(x, y, now_ms, promote_ms));
    expect(compare(a, b) + compare(b, a)).toBe(0);
    if (compare(a, b) < 0 && compare(b, c) < 0) expect(compare(a, c)).toBe(-1);
  });
});
