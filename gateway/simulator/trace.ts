/** The requests of a simulation in columns: when, for which model, how long prompt and answer. Sorted by time. */

export interface RequestTrace {
  readonly count: number;
  readonly arrival_ms: Float64Array;
  /** Place of the model among those of the cluster. */
  readonly model: Uint32Array;
  readonly input_tokens: Uint32Array;
  readonly output_tokens: Uint32Array;
}

export interface TraceRow {
  readonly arrival_ms: number;
  readonly model: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
}

/** Columns of rows in any order; rows of the same time stay in theirs. */
export function toTrace(rows: readonly TraceRow[]): RequestTrace {
  const sorted = rows.toSorted((a, b) => a.arrival_ms - b.arrival_ms);
  return {
    count: sorted.length,
    arrival_ms: Float64Array.from(sorted, (row) => row.arrival_ms),
    model: Uint32Array.from(sorted, (row) => row.model),
    input_tokens: Uint32Array.from(sorted, (row) => row.input_tokens),
    output_tokens: Uint32Array.from(sorted, (row) => row.output_tokens),
  };
}
