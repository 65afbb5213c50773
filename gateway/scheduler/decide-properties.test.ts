/** Properties of the scheduler over random clusters: the rules that must hold whatever the state. */
import { describe, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { tiers } from "../../schema/vocab.ts";
import { checkProperty } from "../../test/support/property.ts";
import { checkpoint, someCluster, weights } from "../../test/support/some-cluster.ts";
import { ClusterIndex } from "./cluster-index.ts";
import { decide as decideOn } from "./decide.ts";
import type { Action, StartTarget } from "./decision.ts";
import { nominalEstimates } from "./estimates.ts";
import { type ClusterFacts, type InstanceView, type PlacementRequest, unused } from "./view.ts";

const index = (cluster: ClusterFacts) => new ClusterIndex(cluster, nominalEstimates, weights);
const decide = (cluster: ClusterFacts, wanted: PlacementRequest) => decideOn(index(cluster), wanted);

type Starting = Extract<Action, { readonly target: StartTarget }>;

function starts(action: Action): action is Starting {
  return "target" in action;
}

function victimsOf(action: Starting): readonly string[] {
  return action.kind === "start" ? [] : action.victims;
}

function usersOf(cluster: ClusterFacts, instance: InstanceView): number {
  return cluster.usage.get(instance.instance_id)?.in_flight ?? 0;
}

function deviceOf(cluster: ClusterFacts, at: { readonly worker_id: string; readonly device_id: string }) {
  const found = cluster.devices.find((d) => d.worker_id === at.worker_id && d.device_id === at.device_id);
  if (found === undefined) throw new Error(`no device ${at.worker_id}/${at.device_id}`);
  return found;
}

function instanceOf(cluster: ClusterFacts, id: string): InstanceView {
  const found = cluster.instances.find((i) => i.instance_id === id);
  if (found === undefined) throw new Error(`no instance ${id}`);
  return found;
}

const accepts = (cluster: ClusterFacts, id: string) =>
  cluster.workers.some((w) => w.worker_id === id && w.accepting);

function servingOf(cluster: ClusterFacts): readonly InstanceView[] {
  return cluster.instances
    .filter((i) => i.model_id === "m" && i.checkpoint === checkpoint && accepts(cluster, i.worker_id))
    .filter((i) => i.state === "ready" || i.state === "loading");
}

describe("whatever the cluster and the policy", () => {
  test("a start never takes more memory than is free and what its victims and moves give back", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (!starts(action)) return;
      const leaving = [
        ...victimsOf(action),
        ...(action.kind === "migrate" ? action.moves.map((m) => m.instance_id) : []),
      ];
      expect(new Set(leaving).size).toBe(leaving.length);
      const freed = leaving.reduce((sum, id) => sum + instanceOf(cluster, id).memory_bytes, 0);
      const { parked } = action.target;
      const again = parked === null ? 0 : instanceOf(cluster, parked).memory_bytes;
      const { reserved_bytes, memory_bytes } = deviceOf(cluster, action.target);
      expect(reserved_bytes - freed + request.memory_bytes - again).toBeLessThanOrEqual(memory_bytes);
    });
  });

  test("moves book no byte and no slot of a destination twice and go nowhere that takes nothing", () => {
    checkProperty(
      someCluster,
      ({ cluster, request }) => {
        const { action } = decide(cluster, request);
        if (action.kind !== "migrate") return;
        expect(request.policy).toBe("startup-optimal");
        const booked = new Map<string, number>();
        for (const move of action.moves) {
          const victim = instanceOf(cluster, move.instance_id);
          expect(victim).toMatchObject({ state: "ready", worker_id: action.target.worker_id });
          expect(victim.device_id).toBe(action.target.device_id);
          expect(usersOf(cluster, victim)).toBeGreaterThan(0);
          expect(accepts(cluster, move.worker_id)).toBe(true);
          const place = `${move.worker_id}/${move.device_id}`;
          expect(place).not.toBe(`${action.target.worker_id}/${action.target.device_id}`);
          if (move.into === null) {
            booked.set(place, (booked.get(place) ?? 0) + victim.memory_bytes);
            continue;
          }
          const into = instanceOf(cluster, move.into);
          expect(into).toMatchObject({ model_id: victim.model_id, state: "ready" });
          expect(usersOf(cluster, into) + usersOf(cluster, victim)).toBeLessThanOrEqual(into.slots);
        }
        for (const [place, bytes] of booked) {
          const [worker_id = "", device_id = ""] = place.split("/");
          const { memory_bytes, reserved_bytes } = deviceOf(cluster, { worker_id, device_id });
          expect(reserved_bytes + bytes).toBeLessThanOrEqual(memory_bytes);
        }
      },
      2_000,
    );
  });

  test("nothing that runs or loads is stopped, but for what a preemption may stop", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (!starts(action)) return;
      expect(action.kind === "preempt").toBe(action.kind === "preempt" && request.policy === "preemptive");
      for (const id of victimsOf(action)) {
        const victim = instanceOf(cluster, id);
        expect(["ready", "parked"]).toContain(victim.state);
        expect(id).not.toBe(action.target.parked ?? "");
        const { worker_id, device_id } = action.target;
        expect(victim).toMatchObject({ worker_id, device_id });
        if (action.kind !== "preempt") expect(usersOf(cluster, victim)).toBe(0);
        else if (usersOf(cluster, victim) > 0) expect(victim.model_id).not.toBe(request.model_id);
      }
    });
  });

  test("of a model's minimum none is stopped for another, whoever comes and goes", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const minimums = new Map([
        ["x", 1],
        ["y", 2],
      ]);
      const view = new ClusterIndex(cluster, nominalEstimates, weights, minimums);
      const serving = (model_id: string, gone: ReadonlySet<string>) =>
        cluster.instances.filter(
          (i) =>
            i.model_id === model_id && ["ready", "loading"].includes(i.state) && !gone.has(i.instance_id),
        ).length;
      // An instance ends first: the index follows.
      const [first] = cluster.instances;
      if (first !== undefined) view.remove(first.instance_id);
      const ended = new Set(first === undefined ? [] : [first.instance_id]);
      const { action } = decideOn(view, request);
      if (!starts(action)) return;
      const gone = new Set([...ended, ...victimsOf(action)]);
      for (const [model_id, minimum] of minimums) {
        const before = serving(model_id, ended);
        expect(serving(model_id, gone)).toBeGreaterThanOrEqual(Math.min(before, minimum));
      }
    });
  });

  test("no victim is stopped without need", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "reclaim" && action.kind !== "preempt") return;
      const { parked } = action.target;
      const again = parked === null ? 0 : instanceOf(cluster, parked).memory_bytes;
      const { memory_bytes, reserved_bytes } = deviceOf(cluster, action.target);
      const victims = action.victims.map((id) => instanceOf(cluster, id).memory_bytes);
      const free = memory_bytes - reserved_bytes + again + victims.reduce((sum, bytes) => sum + bytes, 0);
      for (const bytes of victims) expect(free - bytes).toBeLessThan(request.memory_bytes);
    });
  });

  test("a parked instance comes back only for its own model and checkpoint, and before a new one beside it", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (!starts(action)) return;
      const { worker_id, device_id, parked } = action.target;
      const own = cluster.instances.filter(
        (i) => i.model_id === "m" && i.checkpoint === checkpoint && i.state === "parked",
      );
      const there = own.filter((i) => i.worker_id === worker_id && i.device_id === device_id);
      expect(parked === null).toBe(there.length === 0);
      if (parked !== null) expect(there.map((i) => i.instance_id)).toContain(parked);
    });
  });

  test("work goes only to instances and workers that take it, and no model runs more often than it may", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (starts(action)) {
        expect(accepts(cluster, action.target.worker_id)).toBe(true);
        expect(servingOf(cluster).length).toBeLessThan(request.max_instances);
      }
      if (action.kind !== "use" && action.kind !== "wait" && action.kind !== "queue") return;
      const chosen = instanceOf(cluster, action.instance_id);
      expect(chosen).toMatchObject({ model_id: "m", checkpoint });
      expect(chosen.state).toBe(action.kind === "wait" ? "loading" : "ready");
      expect(accepts(cluster, chosen.worker_id)).toBe(true);
      if (action.kind === "use") expect(usersOf(cluster, chosen)).toBeLessThan(chosen.slots);
    });
  });

  test("the same view gives the same decision, asked again and in whatever order its parts are listed", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const reversed: ClusterFacts = {
        ...cluster,
        workers: cluster.workers.toReversed(),
        devices: cluster.devices.toReversed(),
        sources: cluster.sources.toReversed(),
        links: cluster.links.toReversed(),
        instances: cluster.instances.toReversed(),
      };
      const view = index(cluster);
      const first = decideOn(view, request);
      expect(decideOn(view, request)).toEqual(first);
      expect(decide(reversed, request)).toEqual(first);
    });
  });

  test("a free slot, a load under way or free memory is never turned down, and every answer has its reason", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action, reason, losers } = decide(cluster, request);
      expect(reason).not.toBe("");
      expect(losers.length).toBeLessThanOrEqual(limits.explained_candidates);
      if (action.kind !== "cannot_now" && action.kind !== "cannot_ever") return;
      expect(servingOf(cluster)).toHaveLength(0);
      const complete = (worker_id: string) => {
        const of = (...names: string[]) =>
          Math.max(
            0,
            ...cluster.sources
              .filter((x) => x.worker_id === worker_id && x.checkpoint === checkpoint)
              .filter((x) => names.includes(x.tier))
              .map((x) => x.bytes_present),
          );
        return of(...tiers) >= request.weights_bytes;
      };
      const roomy = cluster.devices.filter(
        (d) =>
          accepts(cluster, d.worker_id) &&
          complete(d.worker_id) &&
          d.memory_bytes - d.reserved_bytes >= request.memory_bytes,
      );
      expect(roomy).toHaveLength(0);
    });
  });

  test("more work queued on a worker's links never draws a start to it", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "start") return;
      const { worker_id } = action.target;
      const eased = cluster.links.map((l) => (l.worker_id === worker_id ? { ...l, queued_ms: 0 } : l));
      const after = decide({ ...cluster, links: eased }, request).action;
      // Its other device may be the sooner one now, even where idle instances make room first.
      expect(["start", "reclaim"]).toContain(after.kind);
      expect(after).toMatchObject({ target: { worker_id } });
    });
  });

  test("changes told one by one leave the same view as facts read anew", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const [first, ...others] = cluster.instances;
      if (first === undefined) return;
      if (first.state === "gone" || first.state === "failed") return;
      const { worker_id, device_id, memory_bytes } = first;
      const devices = cluster.devices.map((d) =>
        d.worker_id === worker_id && d.device_id === device_id
          ? { ...d, reserved_bytes: d.reserved_bytes - memory_bytes }
          : d,
      );
      const without = { ...cluster, devices, instances: others };
      const told = index(cluster);
      told.remove(first.instance_id);
      expect(decideOn(told, request)).toEqual(decide(without, request));
      told.put(first, cluster.usage.get(first.instance_id) ?? unused);
      expect(decideOn(told, request)).toEqual(decide(cluster, request));
    });
  });
});
