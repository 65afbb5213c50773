/** The status of a load that has just begun, for stores that are led by hand. */
import type { NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";

export const begunLoad: NativeLoadStatus = {
  state: "loading",
  failure: null,
  fd: 9,
  direct_io: true,
  bytes_done: 0,
  bytes_total: 0,
  read_ms: 0,
  trace: {
    first_read_ms: 0,
    first_verified_ms: 0,
    last_read_ms: 0,
    ended_ms: 0,
    memory_wait_ms: 0,
    fault_ms: 0,
    digest_ms: 0,
    direct_bytes: 0,
    cached_bytes: 0,
    buffered_bytes: 0,
    retries: 0,
    rereads: 0,
  },
};
