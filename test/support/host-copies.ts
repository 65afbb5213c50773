/** Host copies of checkpoints made by the test's own store, for engines that are led without a worker. */
import type { NativeLibrary, NativeStore } from "../../native/bun-ffi-helpers/native.ts";
import { loadParams } from "../../worker/checkpoints/copy-store.ts";
import type { StoredCheckpoint } from "../../worker/checkpoints/import.ts";
import { eventually } from "./eventually.ts";

export class HostCopies implements Disposable {
  readonly #store: NativeStore;

  constructor(library: NativeLibrary) {
    this.#store = library.createStore();
  }

  /** Reads the weights whole. Returns the path where engine processes open them. */
  async pathOf(checkpoint: StoredCheckpoint): Promise<string> {
    const load = this.#store.load(loadParams(checkpoint));
    const { fd } = await eventually("the weights are read", () => {
      const status = this.#store.status(load);
      if (status.failure) throw new Error(status.failure.message);
      return status.state === "ready" ? status : undefined;
    });
    return `/proc/${process.pid}/fd/${fd}`;
  }

  [Symbol.dispose](): void {
    this.#store[Symbol.dispose]();
  }
}
