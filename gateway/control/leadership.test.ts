/** One leader at a time, whatever happens to gateways, database and wall clocks; another within two leases. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { checkAsyncProperty } from "../../test/support/property.ts";
import { Leadership, leaderLease } from "./leadership.ts";

const silentLog = { info: () => {}, warn: () => {}, error: () => {} };

/** A gateway as far as leading goes: it reads and keeps the lease at every turn, unless it is held up. */
class Candidate {
  readonly leadership: Leadership;
  readonly #store: MemoryStateStore;
  isHeldUp = false;

  constructor(gateway_id: string, store: MemoryStateStore, clock: ManualClock) {
    this.#store = store;
    this.leadership = new Leadership({ store, gateway_id, clock, log: silentLog });
  }

  get leads(): boolean {
    return this.leadership.isLeader;
  }

  async turn(): Promise<void> {
    if (this.isHeldUp) return;
    try {
      const { leases } = await this.#store.changes();
      await this.leadership.keep(leases.find((lease) => lease.name === leaderLease) ?? null);
    } catch {
      // The database is away, as the loop finds out.
      this.leadership.reset();
    }
  }
}

class Scene {
  readonly clock = new ManualClock();
  readonly store = new MemoryStateStore(this.clock);
  readonly candidates = ["g-1", "g-2", "g-3"].map((id) => this.candidate(id));

  candidate(gateway_id: string): Candidate {
    return new Candidate(gateway_id, this.store, this.clock);
  }

  get leaders(): Candidate[] {
    return this.candidates.filter((candidate) => candidate.leads);
  }

  /** Lets time pass turn by turn; never may two lead. */
  async pass(duration_ms: number): Promise<void> {
    for (let passed_ms = 0; passed_ms < duration_ms; passed_ms += limits.reconcile_ms) {
      for (const candidate of this.candidates) {
        await candidate.turn();
        expect(this.leaders.length).toBeLessThanOrEqual(1);
      }
      await this.clock.advance(limits.reconcile_ms);
    }
  }
}

test("the first gateway leads at once, and goes on leading", async () => {
  const scene = new Scene();
  await scene.pass(limits.reconcile_ms);
  const [leader] = scene.leaders;
  expect(leader).toBeDefined();
  await scene.pass(60_000);
  expect(scene.leaders).toEqual(leader === undefined ? [] : [leader]);
  expect((await scene.store.changes()).leases).toMatchObject([{ name: leaderLease, epoch: 1 }]);
});

test("another one takes over within two leases of the leader's death, and not before its lease is over", async () => {
  const scene = new Scene();
  await scene.pass(5_000);
  const [dead] = scene.leaders;
  if (dead === undefined) throw new Error("nobody leads");
  dead.isHeldUp = true;
  const died_ms = scene.clock.monotonicMs();
  while (scene.leaders.length === 0 || scene.leaders[0] === dead) await scene.pass(limits.reconcile_ms);
  const took_ms = scene.clock.monotonicMs() - died_ms;
  expect(took_ms).toBeLessThanOrEqual(2 * limits.leader_lease_ms);
  expect((await scene.store.changes()).leases).toMatchObject([{ epoch: 2 }]);
  // It comes back as one of many.
  dead.isHeldUp = false;
  await scene.pass(10_000);
  expect(dead.leads).toBe(false);
});

test("a leader that stops lets another lead at the next turn", async () => {
  const scene = new Scene();
  await scene.pass(1_000);
  const [first] = scene.leaders;
  if (first === undefined) throw new Error("nobody leads");
  first.isHeldUp = true;
  await first.leadership.release();
  await scene.pass(limits.reconcile_ms);
  expect(scene.leaders).toHaveLength(1);
  expect(scene.leaders).not.toContain(first);
});

test("while the database is away nobody leads for longer than a lease; then the same one leads again", async () => {
  const scene = new Scene();
  await scene.pass(1_000);
  const [leader] = scene.leaders;
  scene.store.isAway = true;
  await scene.pass(limits.leader_lease_ms + limits.leader_renewal_ms);
  expect(scene.leaders).toEqual([]);
  await scene.pass(60_000);
  scene.store.isAway = false;
  await scene.pass(2 * limits.reconcile_ms);
  expect(scene.leaders).toEqual(leader === undefined ? [] : [leader]);
  expect((await scene.store.changes()).leases).toMatchObject([{ epoch: 1 }]);
});

test("a renewal whose answer was lost costs no lease", async () => {
  const scene = new Scene();
  await scene.pass(1_000);
  const [leader] = scene.leaders;
  const { leases } = await scene.store.changes();
  // As if written by the leader itself: it only does not know.
  await scene.store.holdLease(leaderLease, leases[0]?.holder ?? "", leases[0] ?? null);
  await scene.pass(2 * limits.leader_renewal_ms + limits.reconcile_ms);
  expect(scene.leaders).toEqual(leader === undefined ? [] : [leader]);
});

const step = fc.record({
  pass_ms: fc.integer({ min: 0, max: 8_000 }),
  what: fc.constantFrom("hold up", "let go on", "database away", "database back", "replace"),
  who: fc.nat({ max: 2 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

test("in whatever order gateways hang, die, come back and the database goes, two never lead", async () => {
  const holds = async (steps: readonly Step[]) => {
    const scene = new Scene();
    for (const { pass_ms, what, who } of steps) {
      const candidate = scene.candidates[who];
      if (candidate === undefined) throw new Error("there are three");
      if (what === "hold up" || what === "let go on") candidate.isHeldUp = what === "hold up";
      else if (what === "replace")
        scene.candidates[who] = scene.candidate(`g-${scene.clock.monotonicMs()}-${who}`);
      else scene.store.isAway = what === "database away";
      await scene.pass(pass_ms);
    }
    scene.store.isAway = false;
    for (const candidate of scene.candidates) candidate.isHeldUp = false;
    await scene.pass(2 * limits.leader_lease_ms);
    expect(scene.leaders).toHaveLength(1);
  };
  await checkAsyncProperty(fc.array(step, { maxLength: 10 }), holds, 40);
});
