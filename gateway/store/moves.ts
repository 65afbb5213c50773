/** Legality of state changes: the tables of schema/vocab.ts, asked in both directions. */

type Moves<S extends string> = Readonly<Record<S, readonly S[]>>;

/** Throws, as a defect of the caller, when some state in `from` must not become `to`. */
export function assertLegal<S extends string>(
  what: string,
  moves: Moves<S>,
  from: readonly S[],
  to: S,
): void {
  if (from.length === 0) throw new Error(`a move of ${what} to ${to} needs a state to come from`);
  for (const state of from) {
    if (!moves[state].includes(to)) throw new Error(`illegal move of ${what}: ${state} -> ${to}`);
  }
}

/** The states that may become `to`, and `to` itself: a report may say again what is known. */
export function statesBefore<S extends string>(moves: Moves<S>, to: S): S[] {
  const states = Object.keys(moves) as S[];
  return states.filter((state) => state === to || moves[state].includes(to));
}
