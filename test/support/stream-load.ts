/**
 * Many streams at once whose answers are known: each must be, to the last byte, the answer of the undisturbed run, with
 * numbered events that only go up. What differs is counted and described. Where a model does not compute the same thing
 * twice, an answer need only be a valid one of its kind, and how many differ is told.
 */
import { readSse } from "./sse-client.ts";
import { type Answer, exactModel, type StreamKind, streamKinds } from "./stream-kinds.ts";
import { describeWaits, type Wait, WaitMeter } from "./stream-waits.ts";

type Send = (url: string, init: RequestInit) => Promise<Response>;

/** A request, and what its answer was when nothing disturbed it. */
export interface KnownStream {
  readonly kind: StreamKind;
  readonly body: object;
  readonly answer: Answer;
}

export interface LoadOutcome {
  readonly streams: number;
  /** Streams whose answer is not what it must be, and what was wrong with them. */
  readonly wrong: string[];
  /** Streams of the model that need not compute the same thing every time. */
  readonly loose: number;
  /** Of these such with a valid answer that is not the known one. */
  readonly different: number;
  /** Of each stream. */
  readonly waits: Wait[];
}

/** Something comes at least so often, a comment if nothing else: proxies take what is silent for dead. */
const silence_limit_ms = 10_000;

/** What each kind of request answers on a cluster that nobody disturbs. */
export async function knownStreams(url: string): Promise<KnownStream[]> {
  const known: KnownStream[] = [];
  for (const kind of streamKinds) {
    const { model, body: asked, name } = kind;
    const body = { model, stream: true, stream_options: { include_usage: true }, ...asked };
    const { answer, disorder } = await readOne(url, { kind, body }, fetch);
    const problem = disorder ?? kind.problemOf(answer);
    if (problem !== null) throw new Error(`undisturbed, '${name}' ${problem}: ${JSON.stringify(answer)}`);
    known.push({ kind, body, answer });
  }
  return known;
}

/** Runs so many streams, some at once, each to its end. */
export async function runStreams(
  known: readonly KnownStream[],
  options: {
    readonly streams: number;
    readonly atOnce: number;
    readonly send: Send;
    readonly urlOf: (i: number) => string;
  },
): Promise<LoadOutcome> {
  const wrong: string[] = [];
  const waits: Wait[] = [];
  let [next, loose, different] = [0, 0, 0];
  const one = async () => {
    while (next < options.streams) {
      const i = next++;
      const stream = known[i % known.length];
      if (stream === undefined) return;
      const { kind } = stream;
      const say = (problem: string) => wrong.push(`${i}, ${kind.name}: ${problem}`);
      try {
        const { answer, wait, disorder } = await readOne(options.urlOf(i), stream, options.send);
        waits.push(wait);
        const difference = differenceOf(stream.answer, answer);
        const usage = answer.prompt_tokens === stream.answer.prompt_tokens ? null : "counts another prompt";
        const isExact = kind.model === exactModel;
        if (!isExact) loose += 1;
        const problem = disorder ?? usage ?? kind.problemOf(answer) ?? (isExact ? difference : null);
        if (problem !== null) say(problem);
        else if (difference !== null) different += 1;
      } catch (error) {
        say(error instanceof Error ? error.message : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: options.atOnce }, one));
  return { streams: options.streams, wrong, loose, different, waits };
}

export function joinOutcomes(outcomes: readonly LoadOutcome[]): LoadOutcome {
  return {
    streams: outcomes.reduce((sum, { streams }) => sum + streams, 0),
    loose: outcomes.reduce((sum, { loose }) => sum + loose, 0),
    different: outcomes.reduce((sum, { different }) => sum + different, 0),
    wrong: outcomes.flatMap(({ wrong }) => wrong),
    waits: outcomes.flatMap(({ waits }) => waits),
  };
}

/** What the outcome of a run is worth telling, in one line. */
export function describeOutcome({ streams, wrong, loose, different, waits }: LoadOutcome): string {
  return (
    `${streams} streams, ${wrong.length} wrong; ${different} of ${loose} outside the deterministic mode differ; ` +
    describeWaits(waits)
  );
}

async function readOne(url: string, { kind, body }: Pick<KnownStream, "kind" | "body">, send: Send) {
  const meter = new WaitMeter(kind.name);
  const response = await send(`${url}${kind.path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
  meter.begun();
  let [text, tokens, prompt_tokens, last, ends] = ["", 0, 0, -1, 0];
  let [disorder, finish_reason]: (string | null)[] = [null, null];
  const calls: string[] = [];
  for await (const event of readSse(response)) {
    const silence_ms = meter.take(event);
    if (silence_ms > silence_limit_ms) disorder ??= `not a word came for ${silence_ms.toFixed(0)} ms`;
    if (event.kind === "comment") continue;
    if (event.data === "[DONE]") {
      ends += 1;
      continue;
    }
    const chunk = JSON.parse(event.data);
    if (chunk.error !== undefined)
      throw new Error(
        `${chunk.error.code}: ${chunk.error.message} (after ${meter.id} at ${new Date().toISOString()})`,
      );
    const index = Number(/:0\.(-?\d+)$/.exec(event.id ?? "")?.[1] ?? Number.NaN);
    if (!(index >= last)) disorder ??= `event ${index} came after ${last}`;
    last = index;
    const choice = chunk.choices[0];
    text += choice?.text ?? choice?.delta?.content ?? "";
    for (const call of choice?.delta?.tool_calls ?? []) {
      const { name, arguments: more = "" } = call.function;
      calls[call.index] = `${calls[call.index] ?? ""}${name === undefined ? "" : `${name}: `}${more}`;
    }
    finish_reason = choice?.finish_reason ?? finish_reason;
    tokens = chunk.usage?.completion_tokens ?? tokens;
    prompt_tokens = chunk.usage?.prompt_tokens ?? prompt_tokens;
  }
  if (ends !== 1) disorder ??= `the stream had ${ends} ends`;
  const answer: Answer = { text, calls, finish_reason: finish_reason ?? null, tokens, prompt_tokens };
  return { answer, wait: meter.wait, disorder: disorder ?? null };
}

function differenceOf(wanted: Answer, got: Answer): string | null {
  const [due, came] = [wanted, got].map(({ text, calls }) => [text, ...calls].join("\n"));
  if (due !== came) return difference(due ?? "", came ?? "");
  if (wanted.tokens !== got.tokens) return `${got.tokens} tokens were counted, not ${wanted.tokens}`;
  return wanted.finish_reason === got.finish_reason ? null : `it ended with '${got.finish_reason}'`;
}

function difference(wanted: string, got: string): string {
  let same = 0;
  while (same < wanted.length && wanted[same] === got[same]) same += 1;
  const [due, came] = [wanted, got].map((text) => JSON.stringify(text.slice(same, same + 30)));
  return `of ${wanted.length} characters the first ${same} are right, then ${came} came for ${due}`;
}
