/** A share in a host copy: in use, kept by a parked engine until the memory is wanted, or over. */
import type { NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import type { SllmError } from "../../schema/error.ts";
import type { LoadRecorder } from "../traces/load-recorder.ts";
import type { WaitOptions } from "./pending-reads.ts";

/** A load's status; a failure that the tier found itself is an error of the system. */
export type HostStatus = Omit<NativeLoadStatus, "failure"> & {
  readonly failure: NativeLoadStatus["failure"] | SllmError;
};

/** How a share was come by. */
export interface LeaseFacts {
  /** True when the weights were in host memory already. */
  readonly was_present: boolean;
  /** True when the read was begun for this lease, not for another load. */
  readonly was_begun: boolean;
}

/** What whoever asks for a share wants. */
export interface AcquireOptions extends WaitOptions {
  /** Notes the stages until the read begins, for the trace of the load. */
  readonly recorder?: Pick<LoadRecorder, "begin" | "end"> | undefined;
  /** The engine needs the weights only until it is ready: what finds no room may stream by. */
  readonly mayStream?: boolean | undefined;
  /** Devices that take a part of the weights each: their parts are read side by side. One if left out. */
  readonly devices?: number | undefined;
}

/** Makes an engine let a copy go; resolves when it does not map it any more. Never rejects. */
export type LetGo = () => Promise<void>;

/** What of a copy its leases change. */
export interface LentCopy {
  /** Parked engines that map it: they do not keep it from being evicted, but have to let it go before. */
  readonly keepers: Set<LetGo>;
}

/** A share in a host copy. Release it exactly once, when the engine that was given the path does not map it. */
export interface HostLease extends LeaseFacts {
  /** Where engine processes of the same user open the copy. */
  readonly weights_path: string;
  /** State of the read as last seen. */
  status(): HostStatus;
  /** Resolves when the state may have changed. */
  changed(): Promise<void>;
  /**
   * Lets the copy be evicted from now on. `letGo` is called when that begins, ends this lease, and resolves when the
   * engine does not map the copy any more.
   */
  keep(letGo: LetGo): void;
  /** Takes a kept copy into use again; false when it is being evicted. True for one that is in use. */
  use(): boolean;
  /** Does nothing to a lease that an eviction has ended. */
  release(): void;
}

/** What a lease needs of its tier. */
export interface LeaseTies {
  readonly path: string;
  readonly look: () => HostStatus;
  readonly changed: () => Promise<void>;
  readonly isLeaving: () => boolean;
  readonly use: (change: 1 | -1) => void;
  readonly released: () => void;
}

/** `release` and the like change what the tier counts at once, in the same turn. */
export class Lease implements HostLease {
  readonly weights_path: string;
  readonly was_present: boolean;
  readonly was_begun: boolean;
  readonly #copy: LentCopy;
  readonly #ties: LeaseTies;
  /** What the eviction calls while the copy is kept; null while it is in use. */
  #letGo: LetGo | null = null;
  #released = false;

  constructor(copy: LentCopy, { was_present, was_begun }: LeaseFacts, ties: LeaseTies) {
    this.weights_path = ties.path;
    this.was_present = was_present;
    this.was_begun = was_begun;
    this.#copy = copy;
    this.#ties = ties;
  }

  status(): HostStatus {
    return this.#ties.look();
  }

  changed(): Promise<void> {
    return this.#ties.changed();
  }

  keep(letGo: LetGo): void {
    if (this.#letGo || this.#released) throw new Error("a host lease that is not in use cannot be kept");
    this.#letGo = letGo;
    this.#copy.keepers.add(letGo);
    this.#ties.use(-1);
    this.#ties.released();
  }

  use(): boolean {
    if (!this.#letGo) return !this.#released;
    if (this.#ties.isLeaving()) return false;
    this.#copy.keepers.delete(this.#letGo);
    this.#letGo = null;
    this.#ties.use(1);
    return true;
  }

  release(): void {
    if (this.#released) throw new Error("a host lease was released twice");
    this.#released = true;
    if (this.#letGo) this.#copy.keepers.delete(this.#letGo);
    else this.#ties.use(-1);
    this.#ties.released();
  }
}
