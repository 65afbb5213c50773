/** The queue by itself: bounds, places, and when a starved model may lay claim to a device. */
import { describe, expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { deviceKey, WaitQueue } from "./wait-queue.ts";

let generations = 0;

function request(model_id: string, arrived_ms = 0) {
  generations += 1;
  const generation_id = generations.toString(16).padStart(32, "0");
  return { generation_id, model_id, arrived_ms, deadline_ms: arrived_ms + 60_000 };
}

const bounds = { capacity: 3, per_model: 2, starvation_ms: 10_000 };
const device = { worker_id: "w1", device_id: "cpu0" };
const waiting = { state: "queued", reason: "busy", due_ms: null } as const;

function refusal(enter: () => unknown): unknown {
  try {
    return enter();
  } catch (error) {
    return error;
  }
}

describe("bounds", () => {
  test("a full queue refuses as overloaded, with a time; a place given back twice counts once", () => {
    const queue = new WaitQueue(bounds);
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
    const queue = new WaitQueue(bounds);
    queue.enter(request("a"));
    queue.enter(request("a"));
    expect(refusal(() => queue.enter(request("a")))).toMatchObject({ code: "overloaded" });
    expect(queue.enter(request("b")).position).toBe(1);
  });
});

describe("places", () => {
  test("count those of the same model that wait, in the order they came, and follow when one leaves", () => {
    const queue = new WaitQueue({ ...bounds, capacity: 10, per_model: 10 });
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
});

describe("claims", () => {
  test("may be laid after the bound, one per device and one per model", () => {
    const queue = new WaitQueue(bounds);
    const a = queue.enter(request("a", 500));
    const b = queue.enter(request("b"));
    expect(queue.mayClaimFrom(a, device)).toBe(10_500);
    queue.claim(a, device);
    queue.claim(b, device);
    queue.claim(a, { ...device, device_id: "cuda0" });
    expect([...queue.claims]).toEqual([[deviceKey(device), "a"]]);
  });

  test("end with the request that laid them, and the swap lasts as long as the bound", () => {
    const queue = new WaitQueue(bounds);
    const starved = queue.enter(request("a"));
    queue.claim(starved, device);
    queue.enter(request("a", 9_000)).leave(9_500);
    expect(queue.claims.size).toBe(1);
    starved.leave(12_000);
    expect(queue.claims.size).toBe(0);
    const next = queue.enter(request("b", 1_000));
    expect(queue.mayClaimFrom(next, device)).toBe(22_000);
    expect(queue.mayClaimFrom(next, { ...device, device_id: "cuda0" })).toBe(11_000);
  });
});
