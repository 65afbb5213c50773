/**
 * A small world for the reducer of generations, to be explored in every order of its steps: two gateways, two workers and
 * the row of one generation, with messages that come late, connections that break, workers that are cut off and go on
 * unasked, claims, planned moves, and a client that comes back at the other gateway. Pure: steps make new worlds.
 * Longer than other files because all that can happen is one list.
 */
import { dueIn, haveSameMaker } from "../../gateway/dispatch/due.ts";
import {
  advance,
  foundGeneration,
  type Generation,
  type GenerationInput,
  hasEnded,
  newGeneration,
} from "../../gateway/dispatch/generation.ts";
import type { GenerationHop } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";

const names = ["w-0", "w-1"] as const;
const owners = ["g-0", "g-1"] as const;

interface Run {
  readonly epoch: number;
  readonly hops: readonly GenerationHop[];
  /** `<index>@<who made it>`: the same token made twice is another token. */
  readonly tokens: readonly string[];
  readonly movedTo: number | null;
  readonly isOver: boolean;
}

interface Worker {
  /** False: its process is gone, with all that it knew. */
  readonly isUp: boolean;
  /** By which gateways it can be reached. */
  readonly reach: readonly boolean[];
  readonly seen: number;
  readonly run: Run | null;
}

interface Link {
  readonly worker: number;
  readonly epoch: number;
  readonly at: number;
}

interface GatewayView {
  readonly state: Generation;
  readonly told: readonly string[];
  /** The run whose stream is read, and up to where. */
  readonly link: Link | null;
  readonly isLost: boolean;
}

interface Late {
  readonly worker: number;
  readonly epoch: number;
  readonly hops: readonly GenerationHop[];
  readonly tokens: readonly string[];
}

export interface World {
  readonly row: { readonly epoch: number; readonly owner: number; readonly at: number | null };
  readonly workers: readonly Worker[];
  readonly gateways: readonly (GatewayView | null)[];
  /** Requests to begin that have not arrived. */
  readonly late: readonly Late[];
  readonly faults: number;
}

export interface Step {
  readonly name: string;
  readonly next: World;
}

/** Tokens of the whole answer. */
export const answerTokens = 3;

export function firstWorld(faults: number): World {
  const worker: Worker = { isUp: true, reach: [true, true], seen: 0, run: null };
  const state = newGeneration("0".repeat(32), "m", 0);
  return {
    row: { epoch: 1, owner: 0, at: null },
    workers: [worker, worker],
    gateways: [{ state, told: [], link: null, isLost: false }, null],
    late: [],
    faults,
  };
}

/** Everything that can happen next. Throws where something happened that never may. */
export function stepsFrom(world: World): Step[] {
  return [
    ...world.gateways.flatMap((view, g) => (view === null ? [] : gatewaySteps(world, view, g))),
    ...world.workers.flatMap((worker, w) => workerSteps(world, worker, w)),
    ...world.late.map((late, i) => arrive(world, late, i)),
    ...faultSteps(world),
    ...returnOfClient(world),
  ];
}

function gatewaySteps(world: World, view: GatewayView, g: number): Step[] {
  const { state, link } = view;
  if (hasEnded(state)) return [];
  const due = dueIn(state);
  switch (due.kind) {
    case "place":
      return world.workers.flatMap((worker, w) => (worker.reach[g] ? [place(world, view, g, w)] : []));
    case "read":
      return link === null
        ? []
        : [...read(world, view, g, link), ...move(world, view, g), ...recheck(world, view, g)];
    case "attach":
      return [attach(world, view, g, names.indexOf(due.at.worker_id as (typeof names)[number]))];
    case "claim":
      return claim(world, view, g);
    default:
      return [];
  }
}

/** The request may arrive at once, or after whatever else happens. */
function place(world: World, view: GatewayView, g: number, w: number): Step {
  const sent = input(view, { type: "sent", host: hostAt(w), at_ms: 0, load: null });
  const late: Late = { worker: w, epoch: sent.state.epoch, hops: sent.state.hops, tokens: view.told };
  const waiting = withGateway(world, g, {
    ...sent,
    link: { worker: w, epoch: late.epoch, at: view.told.length },
  });
  return {
    name: `g${g} sends epoch ${late.epoch} to w${w}`,
    next: { ...waiting, late: [...world.late, late] },
  };
}

function arrive(world: World, late: Late, i: number): Step {
  const { worker: w, epoch, hops, tokens } = late;
  const worker = at(world.workers, w);
  const rest = { ...world, late: world.late.filter((_, other) => other !== i) };
  const isRefused = !worker.isUp || epoch < worker.seen || (epoch === worker.seen && worker.run !== null);
  const name = `epoch ${epoch} arrives at w${w}${isRefused ? ", refused" : ""}`;
  if (isRefused) return { name, next: rest };
  const run: Run = { epoch, hops, tokens, movedTo: null, isOver: false };
  return { name, next: withWorker(rest, w, { ...worker, seen: epoch, run }) };
}

/** The stream that a gateway reads: begun, the next token, one again, its end, or the news that it broke. */
function read(world: World, view: GatewayView, g: number, link: Link): Step[] {
  const worker = at(world.workers, link.worker);
  const { state } = view;
  const run = worker.run;
  const isThere = worker.isUp && worker.reach[g] === true;
  if (!isThere || run?.epoch !== link.epoch || run.isOver) {
    // What is on its way may still arrive; what was refused or ended never will.
    return [{ name: `g${g} loses its stream`, next: withGateway(world, g, broken(view)) }];
  }
  if (state.phase === "sent") {
    const next = withGateway(world, g, input(view, { type: "started", prompt_tokens: 1 }));
    return [{ name: `g${g} hears the start`, next }];
  }
  const steps: Step[] = [];
  if (link.at < run.tokens.length) {
    steps.push({
      name: `g${g} hears token ${link.at}`,
      next: withGateway(world, g, hear(view, run, link, link.at)),
    });
    if (link.at > 0) {
      steps.push({
        name: `g${g} hears ${link.at - 1} again`,
        next: withGateway(world, g, hear(view, run, link, link.at - 1)),
      });
    }
  } else if (run.movedTo !== null) {
    const to = { ...hostAt(run.movedTo), epoch: run.epoch + 1 };
    const moved = { ...input(view, { type: "moved", to }), link: null };
    steps.push({ name: `g${g} is sent on`, next: withGateway(world, g, moved) });
  } else if (run.tokens.length === answerTokens) {
    const timings = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
    const usage = { prompt_tokens: 1, completion_tokens: answerTokens };
    const done = input(view, { type: "done", finish_reason: "stop", ...usage, timings });
    steps.push({ name: `g${g} hears the end`, next: withGateway(world, g, { ...done, link: null }) });
  }
  return steps;
}

/** The heart of it: what a client gets must follow on what it has, in one and the same text. */
function hear(view: GatewayView, run: Run, link: Link, index: number): GatewayView {
  const state = advance(view.state, { type: "tokens", first_index: index, count: 1, at_ms: 0 });
  if (state.next_index === view.state.next_index) return { ...view, state };
  for (const [i, token] of view.told.entries()) {
    if (run.tokens[i] !== token) {
      throw new Error(`token ${index} of ${run.tokens.join()} follows on ${view.told.join()}`);
    }
  }
  return { ...view, state, told: [...view.told, at(run.tokens, index)], link: { ...link, at: index + 1 } };
}

function broken(view: GatewayView): GatewayView {
  const { state } = view;
  const hasTold = state.next_index > 0 && state.phase === "running";
  const lost: GenerationInput = hasTold ? { type: "lost" } : failed(state);
  return { ...input(view, lost), link: null };
}

function failed(_state: Generation): GenerationInput {
  return { type: "attempt_failed", takes_claim: true };
}

function attach(world: World, view: GatewayView, g: number, w: number): Step {
  const { state } = view;
  const worker = at(world.workers, w);
  const run = worker.run;
  const isRefused = state.is_owner && state.epoch < worker.seen;
  const isThere = worker.isUp && worker.reach[g] === true && run !== null && !run.isOver;
  if (!isThere || isRefused || state.next_index > run.tokens.length) {
    const next = withGateway(world, g, { ...input(view, failed(state)), link: null });
    return { name: `g${g} does not find it at w${w}`, next };
  }
  const isOn = state.next_index === 0 || haveSameMaker(run.hops, state.hops, state.next_index - 1);
  if (!isOn) {
    const error = new SllmError("generation_lost", "not on the path");
    const next = withGateway(world, g, {
      ...input(view, { type: "failed", error }),
      link: null,
      isLost: true,
    });
    return { name: `g${g} has what w${w} never had`, next };
  }
  const attached: GenerationInput = {
    type: "attached",
    epoch: run.epoch,
    instance_id: `i-${w}`,
    hops: run.hops,
  };
  const seen = state.is_owner ? Math.max(worker.seen, state.epoch) : worker.seen;
  const reading = { ...input(view, attached), link: { worker: w, epoch: run.epoch, at: state.next_index } };
  return {
    name: `g${g} reads at w${w}`,
    next: withWorker(withGateway(world, g, reading), w, { ...worker, seen }),
  };
}

/** One wins; who loses goes where the row says, or waits until it says something new. */
function claim(world: World, view: GatewayView, g: number): Step[] {
  const { row } = world;
  const { state } = view;
  if (row.epoch > state.epoch && row.owner !== g) {
    if (row.at === null || hostAt(row.at).worker_id === state.worker_id) {
      // Its owner may never place it: at last its epoch is claimed.
      const next = { ...world, row: { epoch: row.epoch + 1, owner: g, at: row.at } };
      return [{ name: `g${g} claims late`, next: withGateway(next, g, won(view, row.epoch + 1)) }];
    }
    const superseded = input(view, { type: "superseded", at: { ...hostAt(row.at), epoch: row.epoch } });
    return [{ name: `g${g} finds another owner`, next: withGateway(world, g, superseded) }];
  }
  const epoch = Math.max(row.epoch, state.epoch) + 1;
  const next = { ...world, row: { epoch, owner: g, at: row.at } };
  const claimed = withGateway(next, g, won(view, epoch));
  const steps = [{ name: `g${g} claims epoch ${epoch}`, next: claimed }];
  // The fence reaches a worker that answers, or it does not.
  for (const [w, worker] of world.workers.entries()) {
    if (!worker.isUp || worker.reach[g] !== true || worker.seen >= epoch) continue;
    const run = worker.run === null ? null : { ...worker.run, isOver: true };
    steps.push({
      name: `g${g} claims epoch ${epoch}, fences w${w}`,
      next: withWorker(claimed, w, { ...worker, seen: epoch, run }),
    });
  }
  return steps;
}

function won(view: GatewayView, epoch: number): GatewayView {
  return input(view, { type: "claimed", epoch });
}

/** The owner notes where it runs; one that is none any more hears so. */
function recheck(world: World, view: GatewayView, g: number): Step[] {
  const { row } = world;
  const { state, link } = view;
  if (!state.is_owner || link === null || state.phase !== "running") return [];
  if (row.epoch === state.epoch && row.owner === g) {
    if (row.at === link.worker) return [];
    return [{ name: `g${g} notes its place`, next: { ...world, row: { ...row, at: link.worker } } }];
  }
  if (row.owner === g || row.at === null) return [];
  const at = { ...hostAt(row.at), epoch: row.epoch };
  const superseded = { ...input(view, { type: "superseded", at }), link: null };
  return [{ name: `g${g} is told of another owner`, next: withGateway(world, g, superseded) }];
}

/** A planned move of what the owner reads: the epoch, then the last tokens; the source may die in between. */
function move(world: World, view: GatewayView, g: number): Step[] {
  const { state, link } = view;
  if (!state.is_owner || link === null || state.phase !== "running" || state.next_index === 0) return [];
  const from = at(world.workers, link.worker);
  const w = 1 - link.worker;
  const to = at(world.workers, w);
  const { run } = from;
  if (run === null || run.isOver || run.movedTo !== null || !from.isUp || !to.isUp) return [];
  if (state.hand_over === null) {
    const epoch = state.epoch + 1;
    if (world.row.epoch !== state.epoch || world.row.owner !== g || epoch > 3 || run.epoch !== state.epoch)
      return [];
    const handing = input(view, { type: "hand_over", to: { ...hostAt(w), epoch } });
    return [
      {
        name: `g${g} plans a move to w${w}`,
        next: withGateway({ ...world, row: { epoch, owner: g, at: w } }, g, handing),
      },
    ];
  }
  if (to.seen >= state.epoch || run.epoch !== state.epoch - 1) return [];
  const hops = [...run.hops.filter((hop) => hop.first_index < run.tokens.length)];
  const arrived: Run = {
    epoch: state.epoch,
    hops: [...hops, { worker_id: at(names, w), epoch: state.epoch, first_index: run.tokens.length }],
    ...{ tokens: run.tokens, movedTo: null, isOver: false },
  };
  const gone = withWorker(world, link.worker, { ...from, run: { ...run, movedTo: w } });
  return [
    {
      name: `w${link.worker} hands over to w${w}`,
      next: withWorker(gone, w, { ...to, seen: state.epoch, run: arrived }),
    },
  ];
}

function workerSteps(world: World, worker: Worker, w: number): Step[] {
  const { run } = worker;
  if (!worker.isUp || run === null || run.isOver || run.movedTo !== null || run.tokens.length >= answerTokens)
    return [];
  const token = `${run.tokens.length}@w${w}e${run.epoch}`;
  const next = withWorker(world, w, { ...worker, run: { ...run, tokens: [...run.tokens, token] } });
  return [{ name: `w${w} makes ${token}`, next }];
}

function faultSteps(world: World): Step[] {
  if (world.faults === 0) return [];
  const left = { ...world, faults: world.faults - 1 };
  const others = (w: number) =>
    world.workers.some((other, i) => i !== w && other.isUp && other.reach.every(Boolean));
  const steps: Step[] = [];
  for (const [w, worker] of world.workers.entries()) {
    if (!worker.isUp || !others(w)) continue;
    const dead: Worker = { ...worker, isUp: false, reach: [false, false], run: null };
    steps.push({ name: `w${w} dies`, next: withWorker(left, w, dead) });
    if (worker.reach[0]) {
      const cut: Worker = { ...worker, reach: [false, worker.reach[1] === true] };
      steps.push({ name: `w${w} is cut off from g0`, next: withWorker(left, w, cut) });
    }
  }
  for (const [g, view] of world.gateways.entries()) {
    if (view?.state.phase !== "running" || view.link === null) continue;
    steps.push({ name: `g${g}'s connection breaks`, next: withGateway(left, g, broken(view)) });
  }
  return steps;
}

/** The client of the first gateway reads on at the second one, with what it has. */
function returnOfClient(world: World): Step[] {
  const [first, second] = world.gateways;
  if (second !== null || first == null || first.state.next_index === 0 || world.faults === 0) return [];
  const { next_index, hops, worker_id } = first.state;
  const seen = names.indexOf(worker_id as (typeof names)[number]);
  const at = world.row.at ?? seen;
  const place = { ...hostAt(at), epoch: world.row.epoch };
  const state = foundGeneration("0".repeat(32), "m", 0, {
    at: place,
    epoch: world.row.epoch,
    next_index,
    hops,
  });
  const view: GatewayView = { state, told: first.told, link: null, isLost: false };
  return [
    {
      name: "the client comes back at g1",
      next: withGateway({ ...world, faults: world.faults - 1 }, 1, view),
    },
  ];
}

function input(view: GatewayView, event: GenerationInput): GatewayView {
  return { ...view, state: advance(view.state, event) };
}

function hostAt(w: number) {
  return { worker_id: at(names, w), instance_id: `i-${w}` };
}

function withWorker(world: World, w: number, worker: Worker): World {
  return { ...world, workers: world.workers.map((other, i) => (i === w ? worker : other)) };
}

function withGateway(world: World, g: number, view: GatewayView): World {
  return { ...world, gateways: world.gateways.map((other, i) => (i === g ? view : other)) };
}

function at<T>(all: readonly T[], index: number): T {
  const found = all[index];
  if (found === undefined) throw new Error(`there is no place ${index}`);
  return found;
}

/** Names of the gateways, in their order. */
export const gatewayNames = owners;
