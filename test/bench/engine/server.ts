/** llama-server as a subject of the benchmark of generation, over its own HTTP API. */
import { readSse } from "../../support/sse-client.ts";
import { LlamaServer, type ServerOptions } from "../peers/llama-server.ts";
import { type Speed, type Subject, steadySpeed } from "./subject.ts";

/** What an event of a streamed answer tells, as far as it matters here. */
interface ServerEvent {
  readonly stop: boolean;
  readonly tokens?: readonly number[];
  readonly timings?: { readonly prompt_n: number };
}

interface Answer {
  /** When each token came (performance.now()). */
  readonly times: readonly number[];
  readonly prompt_tokens: number;
}

export class ServerSubject implements Subject {
  readonly #server: LlamaServer;

  private constructor(server: LlamaServer) {
    this.#server = server;
  }

  static async start(options: ServerOptions): Promise<ServerSubject> {
    return new ServerSubject(await LlamaServer.start(options));
  }

  async prefill(text: string): Promise<Speed> {
    const started = performance.now();
    const { times, prompt_tokens } = await this.#answer(text, 1);
    return { tokens: prompt_tokens, ms: (times[0] ?? Number.NaN) - started };
  }

  async decode(streams: number, tokens: number, text: string): Promise<Speed> {
    const answers = await Promise.all(Array.from({ length: streams }, () => this.#answer(text, tokens)));
    return steadySpeed(answers.map(({ times }) => times));
  }

  async #answer(prompt: string, n_predict: number): Promise<Answer> {
    const greedy = { temperature: 0, top_k: 1, ignore_eos: true };
    const body = { prompt, n_predict, stream: true, cache_prompt: false, return_tokens: true, ...greedy };
    const response = await fetch(`${this.#server.url}/completion`, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "content-type": "application/json" },
    });
    if (response.status !== 200) throw new Error(`llama-server: ${response.status} ${await response.text()}`);
    const times: number[] = [];
    let prompt_tokens = Number.NaN;
    for await (const { kind, data, at_ms } of readSse(response)) {
      if (kind !== "event") continue;
      const event = JSON.parse(data) as ServerEvent;
      for (const _ of event.tokens ?? []) times.push(at_ms);
      if (event.timings !== undefined) prompt_tokens = event.timings.prompt_n;
    }
    return { times, prompt_tokens };
  }

  close(): Promise<void> {
    return this.#server.close();
  }
}
