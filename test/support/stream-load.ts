/**
 * Many streams at once whose answers are known: each must be, to the last byte, the answer of the undisturbed run, with
 * numbered events that only go up. What differs is counted and described.
 */
import { readSse } from "./sse-client.ts";

type Send = (url: string, init: RequestInit) => Promise<Response>;

/** A request, and what its answer was when nothing disturbed it. */
export interface KnownStream {
  readonly body: object;
  readonly text: string;
  readonly tokens: number;
}

export interface LoadOutcome {
  readonly streams: number;
  /** Streams whose text is not the known one, and what was wrong with them. */
  readonly wrong: string[];
  /** Longest pause between two events of each stream, in milliseconds. */
  readonly pauses_ms: number[];
}

const city = { type: "string", enum: ["Verona", "Venice", "Padua"] };
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 60 },
    towns: { type: "array", items: city, minItems: 6, maxItems: 9 },
  },
  required: ["name", "towns"],
  additionalProperties: false,
};

/** Greedy and sampled, plain and to a schema. */
const kinds: readonly object[] = [
  { prompt: "ROMEO:\n", temperature: 0, max_tokens: 150, ignore_eos: true },
  { prompt: "JULIET:\n", temperature: 1, seed: 7, max_tokens: 150, ignore_eos: true },
  {
    prompt: "NURSE:\n",
    temperature: 1,
    seed: 8,
    top_p: 0.9,
    presence_penalty: 0.5,
    max_tokens: 120,
    ignore_eos: true,
  },
  {
    ...{ prompt: "A list: ", temperature: 1, seed: 9, max_tokens: 150 },
    response_format: { type: "json_schema", json_schema: { name: "towns", schema } },
  },
];

/** What each kind of request answers on a cluster that nobody disturbs. */
export async function knownStreams(url: string, model: string): Promise<KnownStream[]> {
  const known: KnownStream[] = [];
  for (const kind of kinds) {
    const body = { model, stream: true, stream_options: { include_usage: true }, ...kind };
    const { text, tokens } = await readOne(url, body, fetch);
    known.push({ body, text, tokens });
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
  const pauses_ms: number[] = [];
  let next = 0;
  const one = async () => {
    while (next < options.streams) {
      const i = next++;
      const stream = known[i % known.length];
      if (stream === undefined) return;
      try {
        const { text, tokens, pause_ms, disorder } = await readOne(
          options.urlOf(i),
          stream.body,
          options.send,
        );
        pauses_ms.push(pause_ms);
        if (disorder !== null) wrong.push(`${i}: ${disorder}`);
        else if (text !== stream.text) wrong.push(`${i}: ${difference(stream.text, text)}`);
        else if (tokens !== stream.tokens)
          wrong.push(`${i}: ${tokens} tokens were counted, not ${stream.tokens}`);
      } catch (error) {
        wrong.push(`${i}: ${error instanceof Error ? error.message : error}`);
      }
    }
  };
  await Promise.all(Array.from({ length: options.atOnce }, one));
  return { streams: options.streams, wrong, pauses_ms };
}

async function readOne(url: string, body: object, send: Send) {
  const response = await send(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
  let [text, tokens, last, ends] = ["", 0, -1, 0];
  let disorder: string | null = null;
  let [at_ms, pause_ms] = [performance.now(), 0];
  for await (const event of readSse(response)) {
    if (event.kind === "comment") continue;
    if (text !== "") pause_ms = Math.max(pause_ms, event.at_ms - at_ms);
    at_ms = event.at_ms;
    if (event.data === "[DONE]") {
      ends += 1;
      continue;
    }
    const chunk = JSON.parse(event.data);
    if (chunk.error !== undefined) throw new Error(`${chunk.error.code}: ${chunk.error.message}`);
    const index = Number(/:0\.(-?\d+)$/.exec(event.id ?? "")?.[1] ?? Number.NaN);
    if (!(index >= last)) disorder ??= `event ${index} came after ${last}`;
    last = index;
    text += chunk.choices[0]?.text ?? "";
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  if (ends !== 1) disorder ??= `the stream had ${ends} ends`;
  return { text, tokens, pause_ms, disorder };
}

function difference(wanted: string, got: string): string {
  let same = 0;
  while (same < wanted.length && wanted[same] === got[same]) same += 1;
  const [due, came] = [wanted, got].map((text) => JSON.stringify(text.slice(same, same + 30)));
  return `of ${wanted.length} characters the first ${same} are right, then ${came} came for ${due}`;
}

/** The value that so many of the sorted ones are not above. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
