import { expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { WaitingRoom } from "./waiting-room.ts";

test("a full room refuses as overloaded, with a time; a place that is given back twice counts once", () => {
  const room = new WaitingRoom(2);
  const leave = room.enter();
  room.enter();
  expect(() => room.enter()).toThrow(SllmError);
  try {
    room.enter();
  } catch (error) {
    expect(error).toMatchObject({ code: "overloaded", retry_after_ms: 1_000 });
  }
  leave();
  leave();
  expect(room.waiting).toBe(1);
  room.enter();
  expect(() => room.enter()).toThrow(SllmError);
});
