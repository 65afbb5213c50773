/**
 * Keeps an engine alive while a thread other than its owner is inside a long call of it: who calls enters before, and
 * whoever destroys the engine waits until all have left and lets nobody in any more. One shared word counts.
 */
import { controlWord } from "./pump-messages.ts";

/** What the word holds when the engine is gone. */
const shut = -1;

/** False when the engine is gone or going: then it must not be called. */
export function enterEngine(control: Int32Array): boolean {
  for (;;) {
    const inside = Atomics.load(control, controlWord.inside);
    if (inside === shut) return false;
    if (Atomics.compareExchange(control, controlWord.inside, inside, inside + 1) === inside) return true;
  }
}

export function leaveEngine(control: Int32Array): void {
  Atomics.sub(control, controlWord.inside, 1);
  Atomics.notify(control, controlWord.inside);
}

/** Blocks until nobody is inside; from then on nobody enters. Not on a main thread. */
export function shutEngine(control: Int32Array): void {
  for (;;) {
    const inside = Atomics.compareExchange(control, controlWord.inside, 0, shut);
    if (inside === 0 || inside === shut) return;
    Atomics.wait(control, controlWord.inside, inside);
  }
}
