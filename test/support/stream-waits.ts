/** How long streams keep their readers waiting: measured event by event, and described. */
import type { ReceivedEvent } from "./sse-client.ts";

/** How long one stream kept its reader waiting. */
export interface Wait {
  /** Name of the stream's kind. */
  readonly kind: string;
  /** Id of the last event before the longest pause, and when that began. */
  after: string;
  at: Date;
  /** Longest pause between two events. */
  pause_ms: number;
  /** What comments said in it, and how long after its begin. */
  said: readonly string[];
  /** From the request to the first event. */
  first_ms: number;
  /** Longest time without a word, not even a comment, once the answer had begun. */
  silence_ms: number;
}

/** Of one stream, from its request on. */
export class WaitMeter {
  readonly wait: Wait;
  /** Id of the last event. */
  id = "";
  #event_ms = performance.now();
  #heard_ms: number | null = null;
  #said: string[] = [];

  constructor(kind: string) {
    this.wait = { kind, after: "", at: new Date(), pause_ms: 0, said: [], first_ms: 0, silence_ms: 0 };
  }

  /** The answer's headers are there. */
  begun(): void {
    this.#heard_ms = performance.now();
  }

  /** Takes the next event or comment; how long nothing had come before it. */
  take({ kind, data, id, at_ms }: ReceivedEvent): number {
    const silence_ms = at_ms - (this.#heard_ms ?? at_ms);
    const pause_ms = at_ms - this.#event_ms;
    this.#heard_ms = at_ms;
    this.wait.silence_ms = Math.max(this.wait.silence_ms, silence_ms);
    if (kind === "comment") {
      this.#said.push(`${(pause_ms / 1_000).toFixed(1)} s: ${stateOf(data)}`);
      return silence_ms;
    }
    if (this.id === "") this.wait.first_ms = pause_ms;
    else if (pause_ms > this.wait.pause_ms) {
      const at = new Date(Date.now() - pause_ms);
      Object.assign(this.wait, { after: this.id, at, pause_ms, said: this.#said });
    }
    this.#said = [];
    this.#event_ms = at_ms;
    this.id = id ?? this.id;
    return silence_ms;
  }
}

/** `first event p50 3 ms, ...` in one line. */
export function describeWaits(waits: readonly Wait[]): string {
  const [half, most] = quantiles(waits.map(({ pause_ms }) => pause_ms));
  const [halfFirst, mostFirst] = quantiles(waits.map(({ first_ms }) => first_ms));
  return (
    `first event p50 ${halfFirst} ms, p99 ${mostFirst} ms; longest pause p50 ${half} ms, p99 ${most} ms; ` +
    `never silent for more than ${Math.max(...waits.map(({ silence_ms }) => silence_ms)).toFixed(0)} ms`
  );
}

/** The longest pauses, and the longest of each kind, where somebody wants to look into them. */
export function longestPauses(waits: readonly Wait[], count: number): string {
  const all = waits.toSorted((a, b) => b.pause_ms - a.pause_ms);
  const ofKinds = all.filter((wait, i) => all.findIndex(({ kind }) => kind === wait.kind) === i);
  const lines = [...new Set([...all.slice(0, count), ...ofKinds])].map(
    ({ pause_ms, kind, after, at, said }) =>
      `  ${pause_ms.toFixed(0)} ms, ${kind}, after ${after} at ${at.toISOString()}: ${said.join("; ")}\n`,
  );
  return lines.join("");
}

function quantiles(values: readonly number[]): string[] {
  return [0.5, 0.99].map((share) => quantile(values, share).toFixed(0));
}

/** The value that so many of the sorted ones are not above. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** `queued 3`, `moved failover`. */
function stateOf(comment: string): string {
  try {
    const { state, position = "", why = "" } = JSON.parse(comment);
    return `${state} ${position}${why}`;
  } catch {
    return comment;
  }
}
