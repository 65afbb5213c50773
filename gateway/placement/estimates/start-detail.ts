/** Names of the ways in which starts begin, in the keys of what is learned about them. Pure. */
import type { StartState } from "../../scheduler/estimates.ts";

/** Quiet hosts and busy ones are learned apart. */
export function startDetail({ how, is_beside }: StartState): string {
  return is_beside ? `${how}/busy` : how;
}
