/**
 * How many instances a model should have: enough for its settings and for what waits, and no start that costs more than
 * the waiting it saves. Pure. Instances beyond that are stopped by their keep-alive (control/choose-stops.ts).
 */

export interface ScaleView {
  readonly min_instances: number;
  /** null: as many as there is room for. */
  readonly max_instances: number | null;
  /** Requests per instance above which more are wanted; null: only their waiting counts. */
  readonly target_concurrency: number | null;
  /** Expected wait that is taken without another start. */
  readonly queue_delay_ms: number;
  /** Instances that run or load. */
  readonly instances: number;
  /** Requests that one instance works on at once. */
  readonly slots: number;
  /** Requests at instances and waiting for one, on average over the last seconds. */
  readonly demand: number;
  /** Requests without an instance, now. */
  readonly waiting: number;
  /** How long a request holds a slot. */
  readonly service_ms: number;
  /** Until one more instance would serve; null where none can be started. */
  readonly start_ms: number | null;
  /** What a start costs others in memory and links, as time that it must save at least. */
  readonly start_cost_ms: number;
}

export interface Scale {
  readonly instances: number;
  /** For people. */
  readonly reason: string;
}

/** Never fewer than there are, unless the bound says so: what idles goes by its keep-alive. */
export function scaleTo(view: ScaleView): Scale {
  const { min_instances, max_instances, instances } = view;
  const most = max_instances ?? Number.POSITIVE_INFINITY;
  const wanted = [
    { instances, reason: "as many as there are" },
    { instances: min_instances, reason: `at least ${min_instances} are always there` },
    ...forConcurrency(view),
    ...forQueue(view),
  ];
  const largest = wanted.reduce((a, b) => (b.instances > a.instances ? b : a));
  if (largest.instances <= most) return largest;
  return { instances: most, reason: `at most ${most} are allowed` };
}

function forConcurrency({ target_concurrency, demand }: ScaleView): readonly Scale[] {
  if (target_concurrency === null || demand <= 0) return [];
  const instances = Math.ceil(demand / target_concurrency);
  return [{ instances, reason: `${demand.toFixed(1)} requests, ${target_concurrency} per instance` }];
}

/**
 * Instances are added one by one while the last of those that wait would wait longer than it may, and while each saves
 * more waiting, summed over the requests that it can still help, than its start costs.
 */
function forQueue(view: ScaleView): readonly Scale[] {
  const { instances, slots, waiting, service_ms, start_ms, queue_delay_ms, start_cost_ms } = view;
  if (waiting === 0 || start_ms === null || service_ms <= 0) return [];
  const roundMs = service_ms / slots;
  if (instances > 0 && (waiting * roundMs) / instances <= queue_delay_ms) return [];
  // What the running ones get done before a new one is up needs no new one.
  const left = waiting - (instances * start_ms) / roundMs;
  const cost_ms = start_ms + start_cost_ms;
  let wanted = instances;
  while (left > 0 && wanted - instances < Math.ceil(left / slots)) {
    const lastWaits_ms = wanted === 0 ? Number.POSITIVE_INFINITY : start_ms + (left * roundMs) / wanted;
    // One service time longer than the start itself: more instances cannot make it shorter.
    if (wanted > instances && lastWaits_ms <= Math.max(queue_delay_ms, start_ms + service_ms)) break;
    if (wanted > 0 && savedMs(left, roundMs, wanted) < cost_ms) break;
    wanted += 1;
  }
  return [{ instances: wanted, reason: `${waiting} wait, a start takes ${Math.round(start_ms)} ms` }];
}

/** Waiting that one more than so many instances saves all of `left` requests together. */
function savedMs(left: number, roundMs: number, instances: number): number {
  return ((left * left * roundMs) / 2) * (1 / instances - 1 / (instances + 1));
}

/** A mean over time that forgets: after `time_ms` of another value about two thirds of it are that value. */
export function forgettingMean(before: number, now: number, passed_ms: number, time_ms: number): number {
  const weight = 1 - Math.exp(-Math.max(0, passed_ms) / time_ms);
  return before + (now - before) * weight;
}
