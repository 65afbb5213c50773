/** Numbers of public requests with their range: whatever is wrong with one, its refusal names the whole range. */
import { z } from "zod";

/** A number from `low` to `high`, both included. */
export function numberFrom(low: number, high: number) {
  const error = `must be a number from ${low} to ${high}`;
  return z.number({ error }).min(low, { error }).max(high, { error });
}

/** A number above `low` and up to `high`. */
export function numberAbove(low: number, high: number) {
  const error = `must be a number above ${low} and up to ${high}`;
  return z.number({ error }).gt(low, { error }).max(high, { error });
}

/** A whole number from `low` to `high`, both included. */
export function wholeFrom(low: number, high: number) {
  const error = `must be a whole number from ${low} to ${high}`;
  return z.number({ error }).int({ error }).min(low, { error }).max(high, { error });
}
