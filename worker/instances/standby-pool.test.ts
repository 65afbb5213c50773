/** The reserve of engine processes, led by hand. Longer than most files because all tests share the led processes. */
import { beforeEach, expect, test } from "bun:test";
import type { EngineCommand, EngineMessage } from "../../schema/cluster/engine.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import type { EngineEnd, EngineObserver, Skeleton } from "./engine-process.ts";
import { StandbyPool } from "./standby-pool.ts";

const killed: EngineEnd = { reason: "signal SIGKILL", last_lines: ["last words"] };

/** One process as the pool's launcher made it, led by hand. */
class Process {
  readonly pid: number;
  readonly hasSkeleton = false;
  readonly observer: EngineObserver;
  readonly sent: EngineCommand[] = [];
  isAlive = true;

  constructor(pid: number, observer: EngineObserver) {
    this.pid = pid;
    this.observer = observer;
  }

  isRunning(): boolean {
    return this.isAlive;
  }

  lastLines(): readonly string[] {
    return [];
  }

  send(command: EngineCommand): void {
    this.sent.push(command);
  }

  async stop(): Promise<void> {
    this.end({ reason: "status 0", last_lines: [] });
  }

  kill(): void {
    this.end(killed);
  }

  end(end: EngineEnd = killed): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.observer.onEnd(end);
  }

  say(message: EngineMessage): Promise<void> {
    this.observer.onMessage(message);
    return settle();
  }

  async warm(): Promise<void> {
    await this.say({ type: "hello", pid: this.pid, abi_version: 1 });
    await this.say({ type: "warm" });
  }
}

/** An instance's side: what it was told. */
class Taker implements EngineObserver {
  readonly messages: EngineMessage[] = [];
  readonly ends: EngineEnd[] = [];
  onMessage(message: EngineMessage): void {
    this.messages.push(message);
  }
  onEnd(end: EngineEnd): void {
    this.ends.push(end);
  }
}

let clock: ManualClock;
let processes: Process[];
let warnings: unknown[];
let changes: number;
beforeEach(() => {
  clock = new ManualClock();
  processes = [];
  warnings = [];
  changes = 0;
});

async function startPool(size: number, skeletons = 0): Promise<StandbyPool> {
  const pool = new StandbyPool({
    size,
    skeletons,
    engine: "llama",
    clock,
    onChange: () => void changes++,
    log: {
      info: () => {},
      warn: (event, fields) => void warnings.push({ event, ...fields }),
      error: () => {},
    },
    launch: (observer) => {
      const process = new Process(processes.length + 1, observer);
      processes.push(process);
      return process;
    },
  });
  pool.start();
  await settle();
  return pool;
}

test("the reserve fills one process after the other, each counted when it is warm", async () => {
  const pool = await startPool(2);
  expect(processes.map((one) => one.sent)).toEqual([[{ op: "warm", engine: "llama" }]]);
  await processes[0]?.say({ type: "hello", pid: 1, abi_version: 1 });
  expect(pool.warm).toBe(0);
  await processes[0]?.say({ type: "warm" });
  expect(pool.warm).toBe(1);
  expect(processes).toHaveLength(2);
  await processes[1]?.warm();
  expect(pool.warm).toBe(2);
  await clock.advance(60_000);
  expect(processes).toHaveLength(2);
});

test("every process that becomes ready is told of at once, and so is the end of one that was", async () => {
  const pool = await startPool(1, 1);
  pool.setLikely([skeleton("a")]);
  await settle();
  expect(changes).toBe(0);
  await processes[0]?.warm();
  expect(changes).toBe(1);
  await processes[1]?.say({ type: "built", model_build_ms: 3 });
  expect(changes).toBe(2);
  processes[1]?.end();
  expect([changes, pool.built]).toEqual([3, 0]);
});

test("a load takes a warm process, hears its hello at once and everything after", async () => {
  const pool = await startPool(1);
  await processes[0]?.warm();
  pool.setLoading(true);
  const taker = new Taker();
  expect(pool.launch(taker).pid).toBe(1);
  expect(taker.messages).toEqual([{ type: "hello", pid: 1, abi_version: 1 }]);
  expect(pool.warm).toBe(0);
  await processes[0]?.say({ type: "ready", model_build_ms: 1, weights_wait_ms: 0 });
  processes[0]?.end();
  expect(taker.messages.at(-1)?.type).toBe("ready");
  expect(taker.ends).toEqual([killed]);
  expect(warnings).toEqual([]);
});

test("a process that is still starting is taken too; the one that is warm goes first", async () => {
  const pool = await startPool(2);
  await processes[0]?.warm();
  expect(pool.launch(new Taker()).pid).toBe(1);
  const taker = new Taker();
  expect(pool.launch(taker).pid).toBe(2);
  await processes[1]?.warm();
  expect(taker.messages.map((message) => message.type)).toEqual(["hello", "warm"]);
});

test("with an empty reserve, and with none at all, a load starts its own process", async () => {
  const pool = await startPool(0);
  await clock.advance(60_000);
  expect(processes).toHaveLength(0);
  expect(pool.launch(new Taker()).pid).toBe(1);
  expect(processes[0]?.sent).toEqual([]);
});

test("nothing starts while instances load, nor for a second after the last of them", async () => {
  const pool = await startPool(1);
  await processes[0]?.warm();
  pool.setLoading(true);
  pool.launch(new Taker());
  await clock.advance(60_000);
  expect(processes).toHaveLength(1);
  pool.setLoading(false);
  await clock.advance(limits.standby_refill_ms - 1);
  pool.setLoading(true);
  await clock.advance(60_000);
  pool.setLoading(false);
  await clock.advance(limits.standby_refill_ms - 1);
  expect(processes).toHaveLength(1);
  await clock.advance(1);
  expect(processes).toHaveLength(2);
});

test("a process that dies in reserve is replaced after pauses that grow to a bound", async () => {
  await startPool(1);
  const pauses: number[] = [];
  for (let n = 0; n < 9; n++) {
    const died_ms = clock.monotonicMs();
    processes[n]?.end();
    while (processes.length === n + 1) await clock.advance(100);
    pauses.push(clock.monotonicMs() - died_ms);
  }
  expect(pauses).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  expect(warnings[0]).toEqual({
    event: "standby_ended",
    pid: 1,
    end: "signal SIGKILL",
    reason: "last words",
    pause_ms: 500,
  });
});

test("a process that was of use, or waited long, ends a row of failures", async () => {
  const pool = await startPool(1);
  const pauseOfLast = () => (warnings.at(-1) as { pause_ms: number }).pause_ms;
  processes[0]?.end();
  await clock.advance(500);
  await processes[1]?.warm();
  pool.launch(new Taker());
  await settle();
  processes[2]?.end();
  expect(pauseOfLast()).toBe(500);
  await clock.advance(500);
  await processes[3]?.warm();
  processes[3]?.end();
  expect(pauseOfLast()).toBe(1_000);
  await clock.advance(1_000);
  await processes[4]?.warm();
  await clock.advance(limits.standby_back_off_longest_ms);
  processes[4]?.end();
  expect(pauseOfLast()).toBe(500);
});

test("a process that cannot load the libraries is given to nobody and says why in the log", async () => {
  const pool = await startPool(1);
  await processes[0]?.say({
    type: "failed",
    error: { code: "native_unavailable", message: "no libllama here" },
  });
  expect(pool.launch(new Taker()).pid).toBe(2);
  processes[0]?.end({ reason: "status 1", last_lines: [] });
  expect(warnings).toMatchObject([{ end: "status 1", reason: "no libllama here" }]);
});

test("a process that never becomes warm is killed and replaced", async () => {
  await startPool(1);
  await processes[0]?.say({ type: "hello", pid: 1, abi_version: 1 });
  await clock.advance(limits.engine_hello_ms);
  expect(processes[0]?.isAlive).toBe(false);
  await clock.advance(500);
  expect(processes).toHaveLength(2);
});

test("stopping ends the reserve, what was taken lives on, and nothing starts any more", async () => {
  const pool = await startPool(2);
  await processes[0]?.warm();
  pool.launch(new Taker());
  await settle();
  await pool.stop();
  expect(processes.map((one) => one.isAlive)).toEqual([true, false]);
  await clock.advance(60_000);
  expect(processes).toHaveLength(2);
  expect(clock.sleeping).toBe(0);
});

const skeleton = (name: string): Skeleton => ({
  op: "build",
  engine: "llama",
  header_path: `/data/${name}/header.gguf`,
  weights_bytes: 4096,
  context_tokens: 64,
  slots: 1,
  threads: 1,
});

test("the likeliest model is built ahead in a process of its own, after the general reserve", async () => {
  const pool = await startPool(1, 1);
  pool.setLikely([skeleton("a"), skeleton("b")]);
  await settle();
  expect(processes).toHaveLength(1);
  await processes[0]?.warm();
  expect(processes[1]?.sent).toEqual([skeleton("a")]);
  await processes[1]?.say({ type: "built", model_build_ms: 3 });
  expect([pool.warm, pool.built]).toEqual([1, 1]);
  const engine = pool.launch(new Taker(), skeleton("a"));
  expect([engine.pid, engine.hasSkeleton]).toEqual([2, true]);
  expect(pool.built).toBe(0);
});

test("a skeleton is for its own model: another one takes a general process or its own", async () => {
  const pool = await startPool(1, 1);
  pool.setLikely([skeleton("a")]);
  await processes[0]?.warm();
  await processes[1]?.say({ type: "built", model_build_ms: 3 });
  const other = { ...skeleton("a"), slots: 2 };
  expect(pool.launch(new Taker(), other)).toMatchObject({ pid: 1, hasSkeleton: false });
  pool.setLoading(true);
  expect(pool.launch(new Taker(), other)).toMatchObject({ pid: 3, hasSkeleton: false });
  expect(pool.built).toBe(1);
});

test("a skeleton that is still being built is taken by its model", async () => {
  const pool = await startPool(0, 1);
  pool.setLikely([skeleton("a")]);
  await settle();
  expect(pool.launch(new Taker(), skeleton("a"))).toMatchObject({ pid: 1, hasSkeleton: true });
});

test("another likely model takes the place of one that is likely no more", async () => {
  const pool = await startPool(0, 1);
  pool.setLikely([skeleton("a")]);
  await settle();
  await processes[0]?.say({ type: "built", model_build_ms: 3 });
  pool.setLikely([skeleton("b"), skeleton("a")]);
  await settle();
  expect(processes[0]?.isAlive).toBe(false);
  expect(processes[1]?.sent).toEqual([skeleton("b")]);
  expect(warnings).toEqual([]);
});

test("a model that cannot be built is not tried again while it stays likely", async () => {
  const pool = await startPool(0, 1);
  pool.setLikely([skeleton("a")]);
  await settle();
  await processes[0]?.say({ type: "failed", error: { code: "model_load_failed", message: "no header" } });
  processes[0]?.end();
  await clock.advance(120_000);
  expect(processes).toHaveLength(1);
  expect(warnings).toMatchObject([{ event: "standby_ended", reason: "no header" }]);
  pool.setLikely([]);
  pool.setLikely([skeleton("a")]);
  await settle();
  expect(processes).toHaveLength(2);
});

test("without room for skeletons none is built", async () => {
  const pool = await startPool(0, 0);
  pool.setLikely([skeleton("a")]);
  await clock.advance(60_000);
  expect(processes).toEqual([]);
});
