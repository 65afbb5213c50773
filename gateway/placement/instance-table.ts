/** Live instances as of the last read of the store, corrected by this gateway's own later changes. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { InstanceId } from "../../schema/ids.ts";
import type { InstanceState } from "../../schema/vocab.ts";

export function isLiveState(state: InstanceState): boolean {
  return state !== "gone" && state !== "failed";
}

/** A read that began before a change was written may end after it: such a read must not undo what is known here. */
export class InstanceTable {
  #rows = new Map<InstanceId, InstanceRow>();
  readonly #changes = new Map<InstanceId, { readonly row: InstanceRow; readonly readsBegun: number }>();
  #readsBegun = 0;

  /** Numbers a read at its begin; `finishRead` wants the number back. */
  beginRead(): number {
    this.#readsBegun += 1;
    return this.#readsBegun;
  }

  /**
   * Takes a read in. Changes made before it began are in it and need no correction any more. False when everything is
   * as it was: the very same rows.
   */
  finishRead(read: number, rows: readonly InstanceRow[]): boolean {
    const merged = new Map<InstanceId, InstanceRow>();
    for (const row of rows) if (isLiveState(row.state)) merged.set(row.instance_id, row);
    for (const [instance_id, change] of this.#changes) {
      if (change.readsBegun < read) this.#changes.delete(instance_id);
      else setOrDrop(merged, change.row);
    }
    const before = this.#rows;
    this.#rows = merged;
    return (
      before.size !== merged.size || [...merged].some(([instance_id, row]) => before.get(instance_id) !== row)
    );
  }

  /** Records a change that the store has accepted. */
  put(row: InstanceRow): void {
    this.#changes.set(row.instance_id, { row, readsBegun: this.#readsBegun });
    setOrDrop(this.#rows, row);
  }

  get(instance_id: InstanceId): InstanceRow | undefined {
    return this.#rows.get(instance_id);
  }

  /** All live instances. */
  get rows(): ReadonlyMap<InstanceId, InstanceRow> {
    return this.#rows;
  }
}

function setOrDrop(rows: Map<InstanceId, InstanceRow>, row: InstanceRow): void {
  if (isLiveState(row.state)) rows.set(row.instance_id, row);
  else rows.delete(row.instance_id);
}
