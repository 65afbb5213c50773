import { expect, test } from "bun:test";
import { DeviceMemory } from "./device-memory.ts";

const mebibyte = 1024 * 1024;
const first = "i-0000000000000001";
const second = "i-0000000000000002";

test("what does not fit is refused with the numbers, and nothing is booked", () => {
  const memory = new DeviceMemory(100 * mebibyte);
  memory.book(first, 70 * mebibyte);
  expect(() => memory.book(second, 31 * mebibyte)).toThrow(
    "The instance needs 31 MiB; 30 MiB of 100 MiB are free.",
  );
  expect(memory.free_bytes).toBe(30 * mebibyte);
  memory.book(second, 30 * mebibyte);
  expect(memory.free_bytes).toBe(0);
});

test("what could never fit is another error, with the worker's whole budget", () => {
  const memory = new DeviceMemory(10);
  const refused = () => memory.book(first, 11);
  expect(refused).toThrow("The instance needs 11 bytes; this worker gives models 10 in all.");
  expect(refused).toThrow(expect.objectContaining({ code: "model_too_large" }));
});

test("released memory can be booked again, and releasing twice frees it once", () => {
  const memory = new DeviceMemory(10);
  memory.book(first, 10);
  memory.release(first);
  memory.release(first);
  expect(memory.free_bytes).toBe(10);
  memory.book(second, 10);
});

test("booking twice for one instance is a defect", () => {
  const memory = new DeviceMemory(10);
  memory.book(first, 1);
  expect(() => memory.book(first, 1)).toThrow("already");
});
