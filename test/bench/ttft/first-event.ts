/** Time to first token over HTTP, of any server that speaks the completions API. */
import { readSse } from "../../support/sse-client.ts";

/** Short, so that the first token tells of starting rather than of computing; the second shares no prefix with it. */
const prompts = { cold: "ROMEO:", warm: "JULIA:" } as const;

/**
 * Milliseconds from the request until the first event of an answer of one token. A token whose bytes are not text yet
 * is the first one all the same: the end of the answer follows at once. Throws when the server answers with an error.
 */
export async function ttftMs(url: string, model: string, kind: keyof typeof prompts): Promise<number> {
  const body = {
    model,
    prompt: prompts[kind],
    max_tokens: 1,
    temperature: 0,
    stream: true,
    ignore_eos: true,
  };
  const started = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  if (response.status !== 200) throw new Error(`${model}: ${response.status} ${await response.text()}`);
  for await (const received of readSse(response)) {
    if (received.kind !== "event") continue;
    const event = JSON.parse(received.data);
    if (event.error) throw new Error(event.error.message);
    return received.at_ms - started;
  }
  throw new Error(`${model}: no token came`);
}
