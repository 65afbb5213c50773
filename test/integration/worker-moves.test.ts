/**
 * Generations that move between two workers with the sample model in the deterministic mode, one under Bun and one under
 * Deno: whatever they ask for, what a reader gets that follows them is the undisturbed answer.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import type { MoveRequest } from "../../schema/cluster/moves.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { writeToolModel } from "../models/generator/tool-model.ts";
import { answers, messageOf, sampled, text, tokensOf } from "../support/awkward-answers.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

setDefaultTimeout(120_000);

interface Place {
  readonly host: WorkerHost;
  readonly instance_id: string;
  readonly worker_id: string;
  readonly incarnation: string;
}

const folder = mkdtempSync(path.join(tmpdir(), "sllm-moves-model-"));
const source = path.join(folder, "tools.gguf");
const places: Place[] = [];
beforeAll(async () => {
  await writeToolModel(source);
  for (const runtime of ["bun", "deno"] as const) {
    const host = await WorkerHost.start({ runtime });
    const { digest } = await convertGguf({ source, store_dir: host.store });
    const settings = { context_tokens: 1_024, slots: 3, deterministic: true };
    const instance_id = await host.loadReady(digest, settings);
    const { worker_id, incarnation } = await host.status();
    places.push({ host, instance_id, worker_id, incarnation });
  }
}, 120_000);
afterAll(async () => {
  await Promise.all(places.map(({ host }) => host.close()));
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

function placeAt(index: number): Place {
  const place = places[index % places.length];
  if (place === undefined) throw new Error("there is no place");
  return place;
}

function moveTo({ host, instance_id, worker_id, incarnation }: Place, epoch: number): MoveRequest {
  const to = { worker_id, url: host.process.url, incarnation, instance_id };
  // Every other time with the KV cache, every other time computed anew.
  return { protocol_version: 1, to, epoch, gap_tokens: 4, rounds: 50, with_kv: epoch % 2 === 0 };
}

const forever = () => new AbortController().signal;

/** Moves a generation; what the hand-over answered, or why there was none. */
async function move(from: Place, to: Place, generation_id: string, epoch: number): Promise<string> {
  const request = moveTo(to, epoch);
  const leave = new AbortController();
  try {
    for await (const event of from.host.client.moveGeneration(
      from.host.address,
      generation_id,
      request,
      leave.signal,
    )) {
      if (event.type === "error") return event.error.code;
      if (event.type === "ended") return "ended";
      if (event.type !== "ready") continue;
      const handOver = { protocol_version: 1 as const, epoch, owner: null };
      return (await from.host.client.handOver(from.host.address, generation_id, handOver)).outcome;
    }
    return "silent";
  } finally {
    leave.abort();
  }
}

/** Follows a generation from place to place; `onTokens` may have it moved. */
async function follow(
  request: GenerateRequest,
  onTokens: (at: number, next_index: number) => void,
): Promise<{ events: GenerationEvent[]; moves: number }> {
  const { host } = placeAt(0);
  const events: GenerationEvent[] = [];
  let [at, next_index, moves] = [0, 0, 0];
  let stream: AsyncIterable<GenerationEvent | { type: "record" }> = host.client.generate(
    host.address,
    request,
    forever(),
  );
  for (;;) {
    let to: number | null = null;
    for await (const event of stream) {
      if (event.type === "record") continue;
      if (event.type === "moved") to = places.findIndex(({ worker_id }) => worker_id === event.to.worker_id);
      else events.push(event);
      if (event.type !== "tokens") continue;
      expect(event.first_index).toBe(next_index);
      next_index += event.tokens.length;
      onTokens(at, next_index);
    }
    if (to === null) return { events, moves };
    at = to;
    moves += 1;
    const next = placeAt(at).host;
    stream = next.client.attach(next.address, request.generation_id, { from: next_index }, forever());
  }
}

function requestFor(change: Partial<GenerateRequest>): GenerateRequest {
  const { host, instance_id } = placeAt(0);
  const defaults = { ignore_eos: false, max_tokens: 300, sampling: sampled("7") };
  return host.generateRequest(instance_id, { ...defaults, ...change });
}

/** Follows an answer that is moved to and fro all the time. */
async function followMoving(change: Partial<GenerateRequest>) {
  const request = requestFor(change);
  let epoch = 1;
  let moving: Promise<string> = Promise.resolve("moved");
  let isMoving = false;
  const followed = await follow(request, (at) => {
    if (isMoving) return;
    isMoving = true;
    epoch += 1;
    moving = move(placeAt(at), placeAt(at + 1), request.generation_id, epoch).finally(() => {
      isMoving = false;
    });
    moving.catch(() => undefined);
  });
  // The last one may have come too late.
  expect(["moved", "ended"]).toContain(await moving.catch((error) => error.code));
  return followed;
}

test.each(Object.entries(answers))("a moved answer is the undisturbed one: %s", async (_, change) => {
  const undisturbed = await follow(requestFor(change), () => undefined);
  // A short answer may be over before its first move is.
  let followed = await followMoving(change);
  for (let i = 0; followed.moves === 0 && i < 20; i++) followed = await followMoving(change);
  const { events, moves } = followed;
  expect(moves).toBeGreaterThan(0);
  expect(tokensOf(events)).toEqual(tokensOf(undisturbed.events));
  expect(generatedText(events)).toBe(generatedText(undisturbed.events));
  expect(messageOf(events)).toEqual(messageOf(undisturbed.events));
  const { timings: _t, cached_tokens: _c, ...end } = Object(undisturbed.events.at(-1));
  expect(events.at(-1)).toMatchObject(end);
  // Wherever it ended, its usage is that of the prompt's own beginning.
  const begun = events.find(({ type }) => type === "started");
  expect(Object(events.at(-1)).cached_tokens).toBe(Object(begun).cached_tokens);
  for (const { host } of places) expect(await host.client.listGenerations(host.address)).toEqual([]);
});

test("what cannot be moved is refused with the reason, and goes on", async () => {
  const [here, there] = [placeAt(0), placeAt(1)];
  const request = requestFor({ ...text("ROMEO:\n"), max_tokens: 400, ignore_eos: true });
  const refused: Promise<unknown>[] = [];
  let asked = false;
  const { events } = await follow(request, () => {
    if (asked) return;
    asked = true;
    const { generation_id } = request;
    const attempts: [Place, string, number][] = [
      [here, generation_id, 2],
      [there, "f".repeat(32), 2],
      [there, generation_id, 1],
      [{ ...there, instance_id: "i-00000000000000ff" }, generation_id, 2],
      [{ ...there, incarnation: "f".repeat(16) }, generation_id, 2],
    ];
    refused.push(
      ...attempts.map(([to, id, epoch]) =>
        move(here, to, id, epoch).catch((error: unknown) => Object(error).code),
      ),
    );
    const early = { protocol_version: 1 as const, epoch: 1, owner: null };
    refused.push(
      here.host.client
        .handOver(here.host.address, generation_id, early)
        .catch((error: unknown) => Object(error).code),
    );
  });
  const codes: unknown[] = await Promise.all(refused);
  expect(codes.slice(0, 3)).toEqual(["state_conflict", "not_found", "stale_generation"]);
  expect(codes[5]).toBe("state_conflict");
  // Of two moves at once one is refused as such; each fails for its own reason otherwise.
  const reasons: unknown[] = ["not_found", "stale_epoch", "state_conflict"];
  for (const code of codes.slice(3, 5)) expect(reasons).toContain(code);
  expect(tokensOf(events)).toHaveLength(400);
});

test("a gateway that leaves during the rounds ends the move, and both workers are as before", async () => {
  const [here, there] = [placeAt(0), placeAt(1)];
  const request = requestFor({ ...text("JULIET:\n"), max_tokens: 300, ignore_eos: true });
  const leave = new AbortController();
  let left: Promise<void> | null = null;
  const { events, moves } = await follow(request, () => {
    left ??= (async () => {
      const { client, address } = here.host;
      for await (const event of client.moveGeneration(
        address,
        request.generation_id,
        moveTo(there, 2),
        leave.signal,
      )) {
        if (event.type === "ready") leave.abort();
      }
    })();
  });
  await left;
  expect(moves).toBe(0);
  expect(tokensOf(events)).toHaveLength(300);
  expect((await there.host.instance(there.instance_id))?.active).toBe(0);
});
