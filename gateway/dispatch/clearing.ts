/** How work of others leaves a device before a start, where a decision says so. */
import type { InstanceId } from "../../schema/ids.ts";
import type { Action, Move } from "../scheduler/decision.ts";

/** Carries out what a start or a stop of idle instances cannot. Both resolve to false where something else came of it. */
export interface Clearing {
  /** All generations of these instances go on elsewhere, and the instances are gone. */
  moveAway(moves: readonly Move[]): Promise<boolean>;
  /** These instances are gone, and their generations wait again. Only the policy `preemptive` asks for it. */
  preempt(victims: readonly InstanceId[]): Promise<boolean>;
}

export type StartAction = Extract<Action, { kind: "start" | "reclaim" | "migrate" | "preempt" }>;

/** What has to happen before idle victims stop; null when nothing has. A clearing that is not there is a defect. */
export function clearFor(action: StartAction, clearing: Clearing | null): (() => Promise<boolean>) | null {
  if (action.kind === "start" || action.kind === "reclaim") return null;
  if (clearing === null) throw new Error(`the scheduler chose to ${action.kind}`);
  if (action.kind === "migrate") return () => clearing.moveAway(action.moves);
  return () => clearing.preempt(action.victims);
}

/** Idle instances that stop for the start. */
export function idleVictimsOf(action: StartAction): readonly InstanceId[] {
  return action.kind === "reclaim" || action.kind === "migrate" ? action.victims : [];
}
