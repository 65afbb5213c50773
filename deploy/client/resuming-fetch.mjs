/**
 * `sllm/resuming-fetch`: a fetch for any client of an OpenAI-shaped API (`new OpenAI({ fetch })`). A stream that is cut
 * goes on after its last event, at the next gateway of a list if need be, and the client sees one whole stream. Most
 * clients take a stream that ends early for a short answer; with this one they never meet it: what cannot go on ends
 * with an error event. Plain JavaScript without dependencies, for every runtime that has fetch.
 */

/** Requests that can be read again. */
const resumablePath = /\/v1\/(chat\/)?completions$/;
/** Pause before the second try to connect in a row; doubles up to the longest. */
const firstPause_ms = 100;
const longestPause_ms = 2_000;
/** Answers that say "not now": another gateway, or the same one a moment later, may say otherwise. */
const passingStatuses = new Set([502, 503, 504]);
const defaultResume_s = 60;
const msPerSecond = 1_000;

/**
 * @typedef {object} ResumingFetchOptions
 * @property {readonly string[]} [gateways] URLs of gateways of one cluster; left out: the one that is asked
 * @property {number} [resume_seconds] how long a generation waits for its client to come back; 60 if left out
 * @property {(url: string, init: RequestInit) => Promise<Response>} [fetch] what sends; the global fetch if left out
 */

/**
 * Makes a fetch that hides cuts. A deliberate abort ends the generation at the cluster.
 * @param {ResumingFetchOptions} [options]
 * @returns {(input: string | URL | Request, init?: RequestInit) => Promise<Response>}
 */
export function createResumingFetch(options = {}) {
  const send = options.fetch ?? ((url, init) => fetch(url, init));
  const resume_s = options.resume_seconds ?? defaultResume_s;
  return async (input, init = {}) => {
    const request = await describe(input, init);
    if (!request.isResumable) return await send(request.url, request.init);
    const call = new Call(request, send, options.gateways ?? [], resume_s);
    const response = await call.connect();
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true;
    if (!response.ok) return response;
    return isStream ? call.wrap(response) : await call.whole(response);
  };
}

async function describe(input, init) {
  const isRequest = input instanceof Request;
  const url = isRequest ? input.url : String(input);
  const method = (init.method ?? (isRequest ? input.method : "GET")).toUpperCase();
  const headers = new Headers(init.headers ?? (isRequest ? input.headers : undefined));
  const signal = init.signal ?? (isRequest ? input.signal : undefined);
  const body =
    init.body ?? (isRequest && method !== "GET" && method !== "HEAD" ? await input.text() : undefined);
  const isResumable = method === "POST" && resumablePath.test(new URL(url).pathname) && !asksForSeveral(body);
  return { url, isResumable, init: { ...init, method, headers, signal, body } };
}

/** Several answers (`n`) are as many generations, which no event id names together: they pass as they are. */
function asksForSeveral(body) {
  try {
    return JSON.parse(body).n > 1;
  } catch {
    // No JSON text: whatever it is, it is not such a request.
    return false;
  }
}

/** One request of the client, however many connections it takes. */
class Call {
  #request;
  #send;
  #origins;
  #at = 0;
  #resume_ms;
  /** Id of the last event that the client has got. */
  #lastId = null;
  #generation = null;

  constructor(request, send, gateways, resume_s) {
    const own = new URL(request.url).origin;
    this.#request = request;
    this.#send = send;
    this.#origins = [own, ...gateways.map((url) => new URL(url).origin).filter((origin) => origin !== own)];
    this.#resume_ms = resume_s * msPerSecond;
    const { headers } = request.init;
    if (!headers.has("x-sllm-resume")) headers.set("x-sllm-resume", String(Math.ceil(resume_s)));
    // A request whose answer never came is found again by its key instead of being made twice.
    if (!headers.has("idempotency-key")) headers.set("idempotency-key", crypto.randomUUID());
  }

  /** Sends until somebody answers. Rejects as fetch does when nobody has for the time, or the client aborts. */
  async connect() {
    const { signal } = this.#request.init;
    const until_ms = performance.now() + this.#resume_ms;
    for (let pause_ms = firstPause_ms; ; pause_ms = Math.min(2 * pause_ms, longestPause_ms)) {
      let failure;
      try {
        const response = await this.#try();
        if (!passingStatuses.has(response.status) || performance.now() >= until_ms) return response;
        if (this.#lastId === null && (await isFinal(response.clone()))) return response;
        failure = response;
      } catch (error) {
        if (signal?.aborted || performance.now() >= until_ms) throw error;
      }
      if (failure !== undefined) await failure.body?.cancel();
      this.#at += 1;
      await pause(pause_ms, signal);
    }
  }

  #try() {
    const { url, init } = this.#request;
    const target = new URL(url);
    const headers = new Headers(init.headers);
    if (this.#lastId !== null) headers.set("last-event-id", this.#lastId);
    const origin = this.#origins[this.#at % this.#origins.length];
    return this.#send(`${origin}${target.pathname}${target.search}`, { ...init, headers });
  }

  /** An answer that is one body: read here, so that a cut in the middle of it is no answer either. */
  async whole(response) {
    for (let current = response; ; ) {
      try {
        const bytes = await current.arrayBuffer();
        return new Response(bytes, { status: current.status, headers: current.headers });
      } catch (error) {
        if (this.#request.init.signal?.aborted) throw error;
        this.#at += 1;
        current = await this.connect();
      }
    }
  }

  /** The stream as the client reads it: whole events only, and one end. */
  wrap(response) {
    this.#generation = response.headers.get("x-sllm-generation");
    const events = this.#events(response);
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      pull: async (controller) => {
        try {
          const { done, value } = await events.next();
          if (done) controller.close();
          else controller.enqueue(encoder.encode(value));
        } catch (error) {
          if (this.#request.init.signal?.aborted) void this.#cancel();
          controller.error(error);
        }
      },
      cancel: async () => {
        void this.#cancel();
        await events.return();
      },
    });
    return new Response(body, { status: response.status, headers: response.headers });
  }

  async *#events(first) {
    const { signal } = this.#request.init;
    for (let response = first; ; ) {
      try {
        for await (const event of wholeEvents(response.body)) {
          const end = this.#note(event);
          yield event;
          if (end) return;
        }
      } catch (error) {
        if (signal?.aborted) throw error;
      }
      this.#at += 1;
      response = await this.connect();
      if (response.ok) continue;
      // Nobody can go on with it: said in the stream, where the client looks for it.
      yield `data: ${(await response.text()).replace(/\s*\n\s*/g, " ")}\n\n`;
      return;
    }
  }

  /** Keeps where the client stands; true for the event that nothing follows. */
  #note(event) {
    let data = "";
    for (const line of event.split("\n")) {
      if (line.startsWith("id:")) this.#lastId = line.slice(3).trim();
      else if (line.startsWith("data:")) data += line.slice(5).trim();
    }
    return data === "[DONE]" || data.startsWith('{"error"');
  }

  /** The client does not want it any more. Never rejects: without it the generation ends with its time. */
  async #cancel() {
    const id = this.#generation ?? this.#lastId?.slice(0, 32);
    if (id === undefined || id === null) return;
    const { headers } = this.#request.init;
    const origin = this.#origins[this.#at % this.#origins.length];
    const authorization = headers.get("authorization");
    try {
      await this.#send(`${origin}/v1/generations/${id}/cancel`, {
        method: "POST",
        headers: authorization === null ? {} : { authorization },
      });
    } catch {
      // The generation ends by itself when nobody comes back for it.
    }
  }
}

/** Events as they stand in the stream, each with the empty line that ends it. A half one at the end is dropped. */
async function* wholeEvents(body) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      yield text.slice(0, end + 2);
      text = text.slice(end + 2);
    }
  }
}

/** Refusals that waiting does not mend although their status says so: the cluster says which. */
async function isFinal(response) {
  try {
    return (await response.json()).error?.retryable === false;
  } catch {
    // Not the cluster's own word: a proxy in between, which may find it again.
    return false;
  }
}

function pause(delay_ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, delay_ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
