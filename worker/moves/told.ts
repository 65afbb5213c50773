/** Output as it was told, put together from parts that may overlap. Pure. */
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";

/** One beyond the last token. */
export function endOf({ first_index, tokens }: TokensEvent): number {
  return first_index + tokens.length;
}

/**
 * What of the events begins at `next`, without what was there before. Throws `invalid_request` for a gap, and for an
 * event that is known in part and cannot be cut because what it adds to the message belongs to all of it.
 */
export function unknownFrom(told: readonly TokensEvent[], next: number): TokensEvent[] {
  const news: TokensEvent[] = [];
  let at = next;
  for (const event of told) {
    if (endOf(event) <= at) continue;
    if (event.first_index > at || (event.first_index < at && event.delta !== undefined)) {
      const message = `Token ${at} comes next; tokens ${event.first_index} to ${endOf(event) - 1} were sent.`;
      throw new SllmError("invalid_request", message);
    }
    const tokens = event.tokens.slice(at - event.first_index);
    news.push({ ...event, first_index: at, tokens });
    at += tokens.length;
  }
  return news;
}

export function tokensOf(told: readonly TokensEvent[]): number[] {
  return told.flatMap(({ tokens }) => tokens.map(({ token }) => token));
}
