import { expect, test } from "bun:test";
import type { EngineCommand } from "../../schema/cluster/engine.ts";
import { SllmError } from "../../schema/error.ts";
import { settle } from "../../test/support/manual-clock.ts";
import { Adapters } from "./adapters.ts";

/** Adapters by hand: files of 10 bytes each, an engine that answers when it is told to. */
class Scene {
  readonly sent: Extract<EngineCommand, { op: "add_adapter" | "remove_adapter" }>[] = [];
  readonly fetched: string[] = [];
  readonly booked: number[] = [];
  released = 0;
  memory_bytes = 1_000;
  answers = true;
  fetchError: SllmError | null = null;
  readonly adapters: Adapters;

  constructor(most: number, in_place = false) {
    this.adapters = new Adapters({
      ...{ most, in_place },
      fetch: async (checkpoint) => {
        this.fetched.push(checkpoint);
        if (this.fetchError) throw this.fetchError;
        const release = () => void this.released++;
        return { header_path: `${checkpoint}/h`, weights_path: "/proc/1/fd/9", weights_bytes: 10, release };
      },
      book: (bytes) => {
        if (bytes > this.memory_bytes) throw new SllmError("insufficient_memory", "full");
        this.booked.push(bytes);
      },
      send: (command) => {
        this.sent.push(command);
        if (command.op !== "add_adapter" || !this.answers) return;
        const { adapter } = command;
        queueMicrotask(() => this.adapters.onAnswer({ type: "adapter_added", adapter }));
      },
    });
  }

  use(checkpoint: string, signal = new AbortController().signal) {
    return this.adapters.use(checkpoint, signal);
  }
}

const code = (error: unknown) => (error instanceof SllmError ? error.code : String(error));

test("an adapter is brought to the engine once, whoever asks for it, and its files are let go", async () => {
  const scene = new Scene(2);
  const [a, again] = await Promise.all([scene.use("a"), scene.use("a")]);
  expect([a.number, again.number]).toEqual([1, 1]);
  expect((await scene.use("a")).number).toBe(1);
  expect(scene.fetched).toEqual(["a"]);
  expect(scene.sent).toEqual([
    { op: "add_adapter", adapter: 1, header_path: "a/h", weights_path: "/proc/1/fd/9", weights_bytes: 10 },
  ]);
  expect(scene.released).toBe(1);
  expect(scene.booked).toEqual([10]);
});

test("the adapter that was used longest ago goes when all places are taken", async () => {
  const scene = new Scene(2);
  for (const name of ["a", "b", "a"]) (await scene.use(name)).release();
  const c = await scene.use("c");
  expect(c.number).toBe(3);
  expect(scene.sent.at(-2)).toEqual({ op: "remove_adapter", adapter: 2 });
  expect(scene.adapters.bytes).toBe(20);
  // What comes back has a number that was never used.
  c.release();
  expect((await scene.use("b")).number).toBe(4);
});

test("files that the engine computes with stay until their adapter leaves the engine", async () => {
  const scene = new Scene(1, true);
  (await scene.use("a")).release();
  expect(scene.released).toBe(0);
  const b = await scene.use("b");
  expect([scene.released, scene.sent.at(-2)?.op]).toEqual([1, "remove_adapter"]);
  b.release();
  scene.adapters.clear();
  expect(scene.released).toBe(2);
});

test("files are let go where the engine lets all go just as it has taken one in", async () => {
  const scene = new Scene(1, true);
  scene.answers = false;
  const pending = scene.use("a").catch(code);
  await settle();
  scene.adapters.onAnswer({ type: "adapter_added", adapter: 1 });
  scene.adapters.clear();
  expect(await pending).toBe("engine_failed");
  expect([scene.released, scene.adapters.bytes]).toEqual([1, 0]);
});

test("a request waits while all places are in use, and leaves when it is cancelled", async () => {
  const scene = new Scene(1);
  const a = await scene.use("a");
  const leaving = new AbortController();
  const b = scene.use("b", leaving.signal).catch(code);
  const c = scene.use("c");
  await settle();
  expect(scene.fetched).toEqual(["a"]);
  leaving.abort();
  expect(await b).toBe("cancelled");
  a.release();
  expect((await c).number).toBe(2);
  expect(scene.fetched).toEqual(["a", "c"]);
});

test("where memory does not suffice, idle adapters go before a request is refused", async () => {
  const scene = new Scene(8);
  scene.memory_bytes = 20;
  (await scene.use("a")).release();
  const b = await scene.use("b");
  const c = await scene.use("c");
  expect(scene.sent.filter((command) => command.op === "remove_adapter")).toEqual([
    { op: "remove_adapter", adapter: 1 },
  ]);
  expect(await scene.use("d").catch(code)).toBe("insufficient_memory");
  expect(scene.adapters.bytes).toBe(20);
  b.release();
  c.release();
  expect((await scene.use("d")).number).toBe(4);
});

test("what the store or the engine refuses is told, booked no longer, and may be tried again", async () => {
  const scene = new Scene(2);
  scene.fetchError = new SllmError("checkpoint_unavailable", "not here");
  expect(await scene.use("a").catch(code)).toBe("checkpoint_unavailable");
  scene.fetchError = null;
  scene.answers = false;
  const refused = scene.use("a").catch(code);
  await settle();
  expect(scene.adapters.isLoading).toBe(true);
  const error = { code: "checkpoint_unsupported", message: "tensor 'x' has incorrect shape" } as const;
  scene.adapters.onAnswer({ type: "adapter_refused", adapter: 1, error });
  expect(await refused).toBe("checkpoint_unsupported");
  expect(scene.adapters.isLoading).toBe(false);
  expect(scene.booked).toEqual([10, 0]);
  expect(scene.released).toBe(1);
  scene.answers = true;
  expect((await scene.use("a")).number).toBe(2);
});

test("after the engine has let all go nothing is booked for them, and they are brought anew", async () => {
  const scene = new Scene(2);
  (await scene.use("a")).release();
  scene.answers = false;
  const pending = scene.use("b").catch(code);
  await settle();
  scene.adapters.clear();
  expect(await pending).toBe("engine_failed");
  expect(scene.adapters.bytes).toBe(0);
  expect(scene.booked).toEqual([10, 20]);
  scene.answers = true;
  expect((await scene.use("a")).number).toBe(3);
});
