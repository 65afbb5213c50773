/** The queue by itself: bounds, places, turns, and when a starved model may lay claim to a device. */
import { describe, expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { deviceKey } from "./device-claims.ts";
import type { Ticket, Waiting } from "./ticket.ts";
import { WaitQueue } from "./wait-queue.ts";

let generations = 0;

function request(model_id: string, arrived_ms = 0, fields: Partial<Waiting> = {}): Waiting {
  generations += 1;
  const generation_id = generations.toString(16).padStart(32, "0");
  const entry = { tenant: "anyone", priority: "normal" } as const;
  return { generation_id, model_id, ...entry, arrived_ms, deadline_ms: arrived_ms + 60_000, ...fields };
}

const starvation_ms = 10_000;
const device = { worker_id: "w1", device_id: "cpu0" };
const waiting = { state: "queued", reason: "busy", due_ms: null } as const;

function newQueue(bounds: { capacity?: number; per_model?: number; per_tenant?: number } = {}) {
  const clock = new ManualClock();
  const all = { capacity: 100, per_model: 100, per_tenant: 100, ...bounds };
  return { clock, queue: new WaitQueue({ ...all, starvation_ms, clock }) };
}

function refusal(enter: () => unknown): unknown {
  try {
    return enter();
  } catch (error) {
    return error;
  }
}

describe("bounds", () => {
  test("a full queue refuses as overloaded, with a time; a place given back twice counts once", () => {
    const { queue } = newQueue({ capacity: 3, per_model: 2 });
    const first = queue.enter(request("a"));
    queue.enter(request("b"));
    queue.enter(request("c"));
    const refused = refusal(() => queue.enter(request("d")));
    expect(refused).toBeInstanceOf(SllmError);
    expect(refused).toMatchObject({ code: "overloaded", retry_after_ms: 1_000 });
    first.leave(0);
    first.leave(0);
    expect(queue.count).toBe(2);
    queue.enter(request("d"));
    expect(refusal(() => queue.enter(request("e")))).toMatchObject({ code: "overloaded" });
  });

  test("a flood for one model leaves room for another", () => {
    const { queue } = newQueue({ capacity: 3, per_model: 2 });
    queue.enter(request("a"));
    queue.enter(request("a"));
    expect(refusal(() => queue.enter(request("a")))).toMatchObject({ code: "overloaded" });
    expect(queue.enter(request("b")).position).toBe(1);
  });

  test("a flood by one tenant is refused as its own, whatever the models, and others come in", () => {
    const { queue } = newQueue({ per_tenant: 2 });
    const first = queue.enter(request("a", 0, { tenant: "flood" }));
    queue.enter(request("b", 0, { tenant: "flood" }));
    const refused = refusal(() => queue.enter(request("c", 0, { tenant: "flood" })));
    expect(refused).toMatchObject({ code: "too_many_waiting", retry_after_ms: 1_000 });
    queue.enter(request("c", 0, { tenant: "other" }));
    first.leave(0);
    queue.enter(request("c", 0, { tenant: "flood" }));
  });
});

describe("places", () => {
  test("count those of the same model that wait, in the order they came, and follow when one leaves", () => {
    const { queue } = newQueue();
    const served = queue.enter(request("a"));
    const [first, second] = [queue.enter(request("a", 5)), queue.enter(request("a", 6))];
    const other = queue.enter(request("b", 1));
    for (const ticket of [first, second, other]) ticket.note(waiting);
    expect([first.position, second.position, other.position]).toEqual([1, 2, 1]);
    expect(queue.waiting()).toEqual([other, first, second]);
    first.leave(7);
    expect(second.position).toBe(1);
    served.leave(7);
    expect(queue.waiting()).toEqual([other, second]);
  });

  test("count higher priorities and tenants that had less before those that came first", () => {
    const { queue } = newQueue();
    const flood = [1, 2, 3].map((at) => queue.enter(request("a", at, { tenant: "flood" })));
    const other = queue.enter(request("a", 4, { tenant: "other" }));
    const urgent = queue.enter(request("a", 5, { tenant: "flood", priority: "high" }));
    for (const ticket of [...flood, other, urgent]) ticket.note(waiting);
    expect([...flood, other, urgent].map((ticket) => ticket.position)).toEqual([2, 4, 5, 3, 1]);
  });
});

/** Stands in line and notes its name when it is its turn. */
function lineUp(queue: WaitQueue, ticket: Ticket, name: string, turns: string[]): void {
  void queue.turn(ticket).then(() => turns.push(name));
}

describe("turns", () => {
  test("a change wakes the first of the line and nobody else; the next follows when it has stepped out", async () => {
    const { queue } = newQueue();
    const turns: string[] = [];
    const [a, b] = [queue.enter(request("m", 1)), queue.enter(request("m", 2))];
    lineUp(queue, b, "b", turns);
    lineUp(queue, a, "a", turns);
    queue.changed("other");
    await settle();
    expect(turns).toEqual([]);
    queue.changed("m");
    await settle();
    expect(turns).toEqual(["a"]);
    expect(queue.aheadOf(b)).toBe(1);
    a.stepOut();
    await settle();
    expect(turns).toEqual(["a", "b"]);
    expect(queue.waitingFor("m")).toBe(1);
  });

  test("who looked in vain waits for the next change", async () => {
    const { queue } = newQueue();
    const turns: string[] = [];
    const a = queue.enter(request("m"));
    for (const round of ["first", "second"]) {
      lineUp(queue, a, round, turns);
      queue.changed();
      await settle();
      expect(turns.at(-1)).toBe(round);
    }
  });

  test("the turn of one that leaves goes to the next", async () => {
    const { queue } = newQueue();
    const turns: string[] = [];
    const [a, b] = [queue.enter(request("m", 1)), queue.enter(request("m", 2))];
    lineUp(queue, a, "a", turns);
    lineUp(queue, b, "b", turns);
    a.leave(3);
    await settle();
    expect(turns).toEqual(["b"]);
  });

  test("a low priority that has waited for the bound goes before what came since", async () => {
    const { queue, clock } = newQueue();
    const turns: string[] = [];
    lineUp(queue, queue.enter(request("m", 0, { priority: "low" })), "low", turns);
    await clock.advance(starvation_ms);
    lineUp(queue, queue.enter(request("m", starvation_ms)), "fresh", turns);
    queue.changed();
    await settle();
    expect(turns).toEqual(["low"]);
  });

  test("one whose attempt failed after it had left has its old place again", () => {
    const { queue } = newQueue();
    const [a, b] = [queue.enter(request("m", 1)), queue.enter(request("m", 2))];
    a.stepOut();
    a.leave(3);
    void queue.turn(b);
    void queue.turn(a);
    expect([queue.aheadOf(a), queue.aheadOf(b), queue.count]).toEqual([0, 1, 2]);
    a.leave(4);
    b.leave(4);
    expect(queue.count).toBe(0);
  });
});

describe("several models", () => {
  test("what came free is offered to whoever waits longest, however long a model has had a line", async () => {
    const { queue } = newQueue();
    const turns: string[] = [];
    const first = queue.enter(request("a", 1));
    lineUp(queue, first, "gone", []);
    lineUp(queue, queue.enter(request("a", 30)), "a", turns);
    lineUp(queue, queue.enter(request("b", 20)), "b", turns);
    lineUp(queue, queue.enter(request("c", 40, { priority: "high" })), "c", turns);
    first.leave(41);
    await settle();
    turns.length = 0;
    lineUp(queue, queue.enter(request("d", 10)), "d", turns);
    queue.changed();
    await settle();
    expect(turns).toEqual(["c", "d", "b"]);
  });

  test("each model knows how many others wait, and with how many requests", () => {
    const { queue } = newQueue();
    const [a, b, c] = ["a", "b", "c"].map((id, i) => queue.enter(request(id, 10 - i)));
    if (a === undefined || b === undefined || c === undefined) throw new Error("three were let in");
    expect(queue.rivalsOf("a")).toEqual({ models: 0, requests: 0 });
    const second = queue.enter(request("b", 20));
    for (const ticket of [a, b, second, c]) void queue.turn(ticket);
    queue.changed();
    expect(["a", "b", "c"].map((model_id) => queue.rivalsOf(model_id))).toEqual([
      { models: 2, requests: 3 },
      { models: 2, requests: 2 },
      { models: 2, requests: 3 },
    ]);
    second.leave(15);
    b.stepOut();
    c.leave(20);
    c.leave(20);
    expect(queue.rivalsOf("a")).toMatchObject({ models: 0, requests: 0 });
    expect(queue.rivalsOf("b")).toMatchObject({ models: 1, requests: 1 });
  });
});

describe("claims", () => {
  test("are not laid to a device whose own model is waited for by somebody who came before", async () => {
    const { queue, clock } = newQueue();
    const earlier = queue.enter(request("busy", 0));
    const starved = queue.enter(request("a", 1));
    void queue.turn(earlier);
    const behind = { ...device, behind: ["busy"] };
    expect(queue.claimWhenDue(starved, behind, 8)).toBe(10_001);
    await clock.advance(starvation_ms + 1);
    expect(queue.claimWhenDue(starved, behind, 8)).toBe(0);
    expect(queue.claims.all.size).toBe(0);
    earlier.stepOut();
    void queue.turn(queue.enter(request("busy", 2)));
    queue.claimWhenDue(starved, behind, 8);
    expect([...queue.claims.all]).toEqual([[deviceKey(device), "a"]]);
  });

  test("may be laid after the bound, one per device and one per model", () => {
    const { queue } = newQueue();
    const a = queue.enter(request("a", 500));
    const b = queue.enter(request("b"));
    expect(queue.mayClaimFrom(a, device)).toBe(10_500);
    queue.claim(a, device);
    queue.claim(b, device);
    queue.claim(a, { ...device, device_id: "cuda0" });
    expect([...queue.claims.all]).toEqual([[deviceKey(device), "a"]]);
  });

  test("end with the request that laid them, and the swap lasts as long as the bound", () => {
    const { queue } = newQueue();
    const starved = queue.enter(request("a"));
    queue.claim(starved, device);
    queue.enter(request("a", 9_000)).leave(9_500);
    expect(queue.claims.all.size).toBe(1);
    starved.leave(12_000);
    expect(queue.claims.all.size).toBe(0);
    const next = queue.enter(request("b", 1_000));
    expect(queue.mayClaimFrom(next, device)).toBe(22_000);
    expect(queue.mayClaimFrom(next, { ...device, device_id: "cuda0" })).toBe(11_000);
  });
});
