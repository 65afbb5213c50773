/** Names of the ways in which starts begin, in the keys of what is learned about them. Pure. */
import type { StartState } from "../../scheduler/estimates.ts";

/** Quiet hosts and busy ones are learned apart, bytes from memory and from elsewhere. */
export function startDetail({ how, is_in_memory, is_beside }: StartState): string {
  return `${how}${is_in_memory ? "" : "/disk"}${is_beside ? "/busy" : ""}`;
}
