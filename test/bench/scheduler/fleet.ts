/**
 * A synthetic fleet of any size: 8 devices of 80 GB per host, 10,000 models whose popularity follows Zipf's law, disks
 * and memories filled by it, and devices nearly full with instances of which a third work. The same for the same size.
 */
import { ClusterIndex } from "../../../gateway/scheduler/cluster-index.ts";
import { nominalEstimates } from "../../../gateway/scheduler/estimates.ts";
import {
  type DeviceView,
  type InstanceUsage,
  type InstanceView,
  type LinkView,
  type SourceView,
  unused,
} from "../../../gateway/scheduler/view.ts";

const GB = 1e9;
export const devicesPerHost = 8;
export const modelCount = 10_000;
const device_bytes = 80 * GB;
/** 7B, 13B and 34B in 16 bits, 70B in 4: most models are small. */
const sizes = [16 * GB, 16 * GB, 16 * GB, 27 * GB, 27 * GB, 42 * GB, 69 * GB];
const zipfExponent = 0.9;
/** Checkpoints on the disk of a host, and of these in its memory. */
const onDisk = 100;
const inMemory = 10;
const slots = 8;

export interface FleetModel {
  readonly model_id: string;
  readonly checkpoint: string;
  readonly weights_bytes: number;
  readonly memory_bytes: number;
}

export interface BenchFleet {
  readonly index: ClusterIndex;
  /** Draws a model by its popularity. */
  draw(): FleetModel;
  /** Draws any model alike: most are rarely used. */
  drawAny(): FleetModel;
  readonly instances: number;
  readonly placements: number;
}

/** Builds the fleet; the seed decides everything in it. */
export function makeFleet(hosts: number, seed = 1): BenchFleet {
  const chance = mulberry32(seed + hosts);
  const models = Array.from({ length: modelCount }, (_, i) => makeModel(i));
  const draw = zipfDraw(models, chance);
  const sources: SourceView[] = [];
  const devices: DeviceView[] = [];
  const links: LinkView[] = [];
  const instances: InstanceView[] = [];
  const usage = new Map<string, InstanceUsage>();
  // A small fleet must hold every model somewhere, or most requests could only be refused.
  const perDisk = Math.max(onDisk, Math.ceil((2 * modelCount) / hosts));
  for (let h = 0; h < hosts; h++) {
    const worker_id = `w${String(h).padStart(5, "0")}`;
    const held = new Set<FleetModel>();
    const share = Math.ceil(modelCount / hosts);
    for (let k = 0; k < 2 * share; k++) {
      const model = models[(k * hosts + h + (k < share ? 0 : 3)) % modelCount];
      if (model !== undefined) held.add(model);
    }
    for (let tries = 0; held.size < perDisk && tries < 20 * perDisk; tries++) held.add(draw());
    const list = [...held];
    for (const [k, { checkpoint, weights_bytes }] of list.entries()) {
      sources.push({ worker_id, checkpoint, tier: "disk", bytes_present: weights_bytes });
      if (k % Math.ceil(list.length / inMemory) === 0) {
        sources.push({ worker_id, checkpoint, tier: "host", bytes_present: weights_bytes });
      }
    }
    links.push({
      ...{ worker_id, link: "disk", queued_ms: chance() < 0.3 ? chance() * 5_000 : 0 },
      bandwidth_bytes_per_s: (4 + 4 * chance()) * GB,
    });
    for (let d = 0; d < devicesPerHost; d++) {
      const device_id = `cuda${d}`;
      const fill = fillDevice({ worker_id, device_id }, list, chance);
      for (const { instance, used } of fill) {
        instances.push(instance);
        usage.set(instance.instance_id, used);
      }
      const reserved_bytes = fill.reduce((sum, { instance }) => sum + instance.memory_bytes, 0);
      devices.push({ worker_id, device_id, kind: "cuda", memory_bytes: device_bytes, reserved_bytes });
    }
  }
  const ids = [...new Set(devices.map((d) => d.worker_id))];
  const facts = {
    workers: ids.map((worker_id) => ({ worker_id, accepting: true })),
    ...{ devices, sources, links, instances, usage },
    problems: [],
    remote: { peer: false, origin: false },
  };
  const weights = new Map(models.map((m) => [m.checkpoint, m.weights_bytes]));
  const index = new ClusterIndex(facts, nominalEstimates, weights);
  const drawAny = () => models[Math.floor(chance() * models.length)] ?? draw();
  return { index, draw, drawAny, instances: instances.length, placements: sources.length };
}

function makeModel(i: number): FleetModel {
  const weights_bytes = sizes[i % sizes.length] ?? GB;
  const checkpoint = i.toString(16).padStart(64, "0");
  return { model_id: `model-${i}`, checkpoint, weights_bytes, memory_bytes: weights_bytes + 6 * GB };
}

/** Instances until the device is nearly full: a third with work, a third idle, a third parked. */
function fillDevice(
  at: { readonly worker_id: string; readonly device_id: string },
  held: readonly FleetModel[],
  chance: () => number,
): { readonly instance: InstanceView; readonly used: InstanceUsage }[] {
  const fill: { instance: InstanceView; used: InstanceUsage }[] = [];
  const there = new Set<string>();
  let free = device_bytes;
  for (let tries = 0; tries < 12 && free > 22 * GB; tries++) {
    const model = held[Math.floor(chance() ** 2 * held.length)];
    if (model === undefined || there.has(model.model_id)) continue;
    const kind = chance();
    const memory_bytes = kind < 0.33 ? GB : model.memory_bytes;
    if (memory_bytes > free) continue;
    free -= memory_bytes;
    there.add(model.model_id);
    const busy = kind > 0.66;
    fill.push({
      instance: {
        instance_id: `i-${at.worker_id}-${at.device_id}-${fill.length}`,
        ...{ model_id: model.model_id, checkpoint: model.checkpoint, ...at, slots, memory_bytes },
        state: kind < 0.33 ? "parked" : "ready",
      },
      used: {
        ...unused,
        in_flight: busy ? 1 + Math.floor(chance() * slots) : 0,
        tokens: busy ? Math.floor(chance() * 8_000) : 0,
        busy_since_ms: busy ? Math.floor(chance() * 1e6) : null,
        last_used_ms: Math.floor(chance() * 1e6),
      },
    });
  }
  return fill;
}

function zipfDraw(models: readonly FleetModel[], chance: () => number): () => FleetModel {
  let total = 0;
  const upTo = models.map((_, i) => {
    total += 1 / (i + 1) ** zipfExponent;
    return total;
  });
  return () => {
    const at = chance() * total;
    let low = 0;
    let high = upTo.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((upTo[middle] ?? 0) < at) low = middle + 1;
      else high = middle;
    }
    const model = models[low];
    if (model === undefined) throw new RangeError("there is no model");
    return model;
  };
}

/** A small generator of uniform numbers in [0, 1), the same for the same seed. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
