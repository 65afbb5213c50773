/**
 * The policies: what each of them would do to start a model, given the candidates in its own order. Pure.
 * `startup-optimal` compares everything that is allowed. `locality` takes the device with the soonest load and waits for
 * it. `preemptive` takes the same device and stops what runs there. `random` draws among what is free.
 */
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import { type Candidate, type Candidates, type Rank, soonest } from "./candidates.ts";
import type { Option } from "./option.ts";
import { drawFor } from "./order.ts";
import {
  isBehindLink,
  startByMoves,
  startByPreemption,
  startByReclaim,
  startInFree,
  waitForLink,
  waitForMemory,
} from "./start-options.ts";
import type { ClusterView, PlacementRequest } from "./view.ts";

interface Policy {
  /** The order in which candidates are looked at. */
  rank(request: PlacementRequest): Rank;
  options(view: ClusterView, request: PlacementRequest, candidates: Candidates): readonly (Option | null)[];
}

/** Devices for which moves are planned: each costs a search for places of all its running instances. */
const plansTried = 3;

export const policies: Readonly<Record<SchedulingPolicy, Policy>> = {
  "startup-optimal": {
    rank: () => soonest,
    options: (view, request, { free, reclaimable, busy }) => {
      const price = priceOf(view, request);
      const others = [
        ...free.slice(0, 1).map((c) => withToll(price, c, startOrWait(request, c, startInFree(c)))),
        ...reclaimable.map((c) => withToll(price, c, startOrWait(request, c, startByReclaim(c)))),
        ...busy.map((c) => withToll(price, c, waitForMemory(view, request, c))),
      ];
      // A move takes two devices for its time: where others wait for one it costs them more than it brings.
      if (!request.may_migrate || request.rivals.models > 0) return others;
      const bar_ms = Math.min(...others.map((o) => o?.cost_ms ?? Number.POSITIVE_INFINITY));
      const promising = busy.filter((c) => c.ready_ms < bar_ms).slice(0, plansTried);
      return [...others, ...promising.map((c) => startByMoves(view, request, c))];
    },
  },
  locality: {
    rank: () => soonest,
    options: (view, request, candidates) => {
      const busy = soonestBusy(candidates);
      return busy !== null ? [waitForMemory(view, request, busy)] : withRoom(candidates);
    },
  },
  preemptive: {
    rank: () => soonest,
    options: (view, request, candidates) => {
      const busy = soonestBusy(candidates);
      if (busy === null) return withRoom(candidates);
      return [startByPreemption(request, busy) ?? waitForMemory(view, request, busy)];
    },
  },
  random: {
    rank: ({ seed }) => ({
      of: ({ host, device_id }) => drawFor(seed, `${host.worker_id} ${device_id}`),
      atLeast: () => 0,
    }),
    options: (view, request, { free, reclaimable, busy }) => {
      const [first] = free;
      if (first !== undefined) return [startInFree(first)];
      const [idle] = reclaimable;
      if (idle !== undefined) return [startByReclaim(idle)];
      return busy.slice(0, 1).map((c) => waitForMemory(view, request, c));
    },
  },
};

/**
 * What a device's time costs the others: while it loads nobody computes there, and each that waits for a device is served
 * so much later as the devices together lose.
 */
function priceOf({ device_count }: ClusterView, { rivals }: PlacementRequest): number {
  return rivals.requests / Math.max(1, device_count);
}

/** A start that is put off leaves the device to others until its bytes can travel. */
function withToll(price: number, { ready_ms, travel }: Candidate, option: Option | null): Option | null {
  if (option === null || price === 0) return option;
  const isTaken = option.action.kind === "start" || option.action.kind === "reclaim";
  return { ...option, toll_ms: price * (isTaken ? ready_ms : ready_ms - travel.queued_ms) };
}

/** The start, or the wait for its link. */
function startOrWait(request: PlacementRequest, candidate: Candidate, start: Option | null): Option | null {
  return start !== null && isBehindLink(request, candidate) ? waitForLink(start, candidate) : start;
}

/** The busy candidate with the soonest load, if no other loads as soon. */
function soonestBusy({ free, reclaimable, busy }: Candidates): Candidate | null {
  const [first] = busy;
  const others = Math.min(readyMs(free[0]), readyMs(reclaimable[0]));
  return first !== undefined && first.ready_ms < others ? first : null;
}

/** Free memory first where both load equally soon. */
function withRoom({ free, reclaimable }: Candidates): readonly (Option | null)[] {
  const [first] = free;
  if (first !== undefined && first.ready_ms <= readyMs(reclaimable[0])) return [startInFree(first)];
  return reclaimable.map(startByReclaim);
}

function readyMs(candidate: Candidate | undefined): number {
  return candidate?.ready_ms ?? Number.POSITIVE_INFINITY;
}
