/** The store of the gateway's own tests, held to what the real ones promise. */
import { MemoryStateStore } from "../support/memory-state-store.ts";
import { stateStoreContract } from "./state-store.contract.ts";

stateStoreContract("memory", {
  durable: false,
  open: () => Promise.resolve({ store: new MemoryStateStore(), close: () => Promise.resolve() }),
});
