/** The `sllm` command against the real system: what people type first, what they type wrongly, and how it all ends. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { sampleModelPath } from "../support/cluster.ts";
import { descendantsOf, programs, runProgram, type Started, startProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive } from "../support/processes.ts";

const folder = mkdtempSync(path.join(tmpdir(), "sllm-cli-"));

const readyText = "Ctrl-C stops it.";
const sllm = (...args: string[]) => runProgram(programs.sllm, args, { folder });

/** A test that fails half-way must not leave its system running. */
const running = new Set<Started>();
afterAll(async () => {
  await Promise.all([...running].map((up) => stop(up)));
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

async function startUp(data: string): Promise<Started> {
  const up = startProgram(programs.sllm, ["up", "--data-dir", data, "--port", "0"], { folder });
  running.add(up);
  await up.untilPrinted(readyText);
  return up;
}

async function stop(up: Started, signal: NodeJS.Signals = "SIGTERM") {
  running.delete(up);
  up.child.kill(signal);
  return up.finished;
}

describe("a running system", () => {
  const data = ["--data-dir", "data"];
  let up: Started;
  beforeAll(async () => {
    up = await startUp("data");
  }, 60_000);
  afterAll(() => stop(up), 30_000);

  test.skipIf(Bun.which("curl") === null)("prints a request that can be pasted and streams an answer", () => {
    const line = up
      .out()
      .split("\n")
      .find((text) => text.startsWith("curl -N "));
    const { stdout } = Bun.spawnSync(["sh", "-c", line ?? "false"]);
    const answer = stdout.toString();
    expect(answer).toContain('"object":"chat.completion.chunk"');
    expect(answer).toEndWith("data: [DONE]\n\n");
  });

  test("keeps its data and its token to the owner", () => {
    expect(statSync(path.join(folder, "data")).mode & 0o077).toBe(0);
    expect(statSync(path.join(folder, "data/cluster-token")).mode & 0o077).toBe(0);
  });

  test("is found by other commands through the data folder, whatever its port", async () => {
    const { status, out } = await sllm("ls", "--json", ...data);
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject([{ id: "tiny-shakespeare", architecture: "llama" }]);
    expect((await sllm("ls", ...data)).out).toContain("tiny-shakespeare");
    const workers = JSON.parse((await sllm("ls", "--workers", "--json", ...data)).out);
    expect(workers).toMatchObject([{ state: "ready" }]);
  });

  test("refuses a second start, naming the first one's process and address", async () => {
    const { status, err } = await sllm("up", ...data, "--port", "0");
    expect(status).toBe(1);
    expect(err).toContain(`process ${up.pid}`);
    expect(err).toMatch(/already running at http:\/\/127\.0\.0\.1:\d+/);
  });

  test("answers in the terminal, and takes a conversation from standard input", async () => {
    const once = await sllm("chat", "tiny-shakespeare", "To be, or not to be", "--max-tokens", "12", ...data);
    expect(once.status).toBe(0);
    expect(once.out.trim().length).toBeGreaterThan(5);
    expect(once.err).toBe("");
    const talk = startProgram(programs.sllm, ["chat", "tiny-shakespeare", "--max-tokens", "8", ...data], {
      folder,
    });
    talk.child.stdin?.end("Who is there?\nAnd who are you?\n");
    const { status, out } = await talk.finished;
    expect(status).toBe(0);
    expect(out.trim().length).toBeGreaterThan(10);
  });

  test("ends without a word when the reader of its answer leaves, as head does", async () => {
    const talk = startProgram(programs.sllm, ["chat", "tiny-shakespeare", "Speak at length.", ...data], {
      folder,
    });
    talk.child.stdout?.once("data", () => talk.child.stdout?.destroy());
    const { status, err } = await talk.finished;
    expect(err).toBe("");
    expect(status).toBe(0);
  });

  test("deploys a file under a name, refuses the name again, replaces it, removes it", async () => {
    const model = ["deploy", "mine", sampleModelPath, ...data];
    const settings = ["--context", "128", "--slots", "2", "--keep-alive", "30s"];
    const first = await sllm(...model, ...settings, "--json");
    expect(first.status).toBe(0);
    const deployed = JSON.parse(first.out);
    expect(deployed).toMatchObject({ id: "mine", context_tokens: 128, slots: 2, keep_alive_ms: 30_000 });
    const again = await sllm(...model);
    expect(again.status).toBe(1);
    expect(again.err).toContain("--replace");
    expect((await sllm(...model, "--replace")).status).toBe(0);
    const byDigest = await sllm("deploy", "same", deployed.checkpoint, ...data);
    expect(byDigest.status).toBe(0);
    expect((await sllm("rm", "mine", ...data)).status).toBe(0);
    await eventually("the removed model is gone", async () => {
      const { out } = await sllm("ls", "--json", ...data);
      return !out.includes('"mine"');
    });
    const gone = await sllm("rm", "mine", ...data);
    expect(gone.status).toBe(1);
    expect(gone.err).toContain("there is no model 'mine'");
  });

  test("refuses what is no model, and leaves nothing of it in the store", async () => {
    const before = readdirSync(path.join(folder, "data/checkpoints")).sort();
    const file = path.join(folder, "broken.gguf");
    writeFileSync(file, "GGUF but no more");
    const { status, err } = await sllm("deploy", "broken", file, ...data);
    expect(status).toBe(1);
    expect(err).toContain("broken.gguf: at byte ");
    expect(readdirSync(path.join(folder, "data/checkpoints")).sort()).toEqual(before);
  });

  test("says what helps when a model is not deployed", async () => {
    const { status, err } = await sllm("chat", "no-such-model", "hello", ...data);
    expect(status).toBe(1);
    expect(err).toContain("model_not_found");
    expect(err).toContain("sllm ls");
  });
});

describe("the life of a system", () => {
  test("Ctrl-C ends every process, and the next start has the same models less the removed sample", async () => {
    const first = await startUp("life");
    const data = ["--data-dir", "life"];
    expect((await sllm("deploy", "kept", sampleModelPath, ...data)).status).toBe(0);
    expect((await sllm("chat", "kept", "hello", "--max-tokens", "4", ...data)).status).toBe(0);
    expect((await sllm("rm", "tiny-shakespeare", ...data)).status).toBe(0);
    const processes = descendantsOf(first.pid);
    expect(processes.length).toBeGreaterThanOrEqual(3); // gateway, worker, engine
    const end = await stop(first, "SIGINT");
    expect(end.status).toBe(0);
    expect(processes.filter(isAlive)).toEqual([]);
    expect(existsSync(path.join(folder, "life/lock"))).toBe(false);

    const second = await startUp("life");
    const { out } = await sllm("ls", "--json", ...data);
    expect(JSON.parse(out).map((model: { id: string }) => model.id)).toEqual(["kept"]);
    expect((await stop(second)).status).toBe(0);
  }, 120_000);

  test("a worker that dies is started again and serves", async () => {
    const up = await startUp("crash");
    const worker = descendantsOf(up.pid).find((pid) => commandOf(pid).includes("worker/main"));
    if (worker === undefined) throw new Error("there is no worker process");
    process.kill(worker, "SIGKILL");
    await eventually("the worker is running again", () => up.err().includes("worker: running again"), 30_000);
    const answer = await sllm(
      "chat",
      "tiny-shakespeare",
      "hello",
      "--max-tokens",
      "4",
      "--data-dir",
      "crash",
    );
    expect(answer).toMatchObject({ status: 0 });
    await stop(up);
  }, 120_000);

  test("killed outright it leaves no process behind, and the next start takes its lock over", async () => {
    const up = await startUp("killed");
    const processes = descendantsOf(up.pid);
    await stop(up, "SIGKILL");
    await eventually("its processes are gone", () => !processes.some(isAlive), 30_000);
    expect(existsSync(path.join(folder, "killed/lock"))).toBe(true);
    const next = await startUp("killed");
    expect((await stop(next)).status).toBe(0);
  }, 120_000);

  test("the start script passes the end on and ends with status 0", async () => {
    const variables = { SLLM_DATA_DIR: path.join(folder, "script"), SLLM_GATEWAY_PORT: "0" };
    const script = startProgram(programs.start, [], { folder, variables });
    running.add(script);
    await script.untilPrinted(readyText);
    const processes = descendantsOf(script.pid);
    expect((await stop(script, "SIGINT")).status).toBe(0);
    expect(processes.filter(isAlive)).toEqual([]);
  }, 120_000);
});

describe("without a system", () => {
  test("the demo shows a cold start from zero and leaves nothing behind", async () => {
    const temporary = mkdtempSync(path.join(folder, "tmp-"));
    const { status, out, err } = await runProgram(programs.demo, ["--json"], {
      folder,
      variables: { TMPDIR: temporary },
    });
    expect(status, err).toBe(0);
    const result = JSON.parse(out.trimEnd().split("\n").at(-1) ?? "");
    expect(result).toMatchObject({ cold_start: true });
    expect(result.tokens).toBeGreaterThan(0);
    expect(result.text.length).toBeGreaterThan(0);
    const { queue, total } = result.timeline_ms;
    expect(total).toBeGreaterThan(queue);
    expect(result.ttft_ms).toBeGreaterThanOrEqual(total - queue);
    expect(readdirSync(temporary)).toEqual([]);
  }, 120_000);

  test("commands say that no gateway answers and how to start one", async () => {
    const { status, err } = await sllm("ls", "--url", "http://127.0.0.1:1");
    expect(status).toBe(1);
    expect(err).toContain("no gateway answers at http://127.0.0.1:1");
    expect(err).toContain("npm start");
  });

  test("a conversion prints the checkpoint and finds it again the second time", async () => {
    const convert = ["convert", sampleModelPath, "--store", "store", "--json"];
    const first = await sllm(...convert);
    expect(first.status).toBe(0);
    const { digest, directory } = JSON.parse(first.out);
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(existsSync(path.join(folder, directory, "manifest.json"))).toBe(true);
    expect((await sllm(...convert)).out).toBe(first.out);
  });

  test("a store is verified, and a flipped bit fails that with file, offset and both digests", async () => {
    const convert = await sllm("convert", sampleModelPath, "--store", "checked", "--json");
    const { digest, directory } = JSON.parse(convert.out);
    const verify = ["verify", digest, "--store", "checked"];
    const whole = await sllm(...verify, "--strong");
    expect(whole).toMatchObject({ status: 0, out: expect.stringContaining(`${digest}  ok`), err: "" });
    const weights = path.join(folder, directory, "weights.bin");
    const bytes = readFileSync(weights);
    bytes[1_000_003] = (bytes[1_000_003] ?? 0) ^ 4;
    writeFileSync(weights, bytes);
    const damaged = await sllm(...verify, "--json");
    expect(damaged.status).toBe(1);
    expect(JSON.parse(damaged.out).checkpoints[0].damages).toEqual([
      {
        file: "weights.bin",
        offset: 0,
        expected: expect.stringMatching(/^XXH3 [0-9a-f]{16}$/),
        found: expect.stringMatching(/^XXH3 [0-9a-f]{16}$/),
      },
    ]);
    expect((await sllm("convert", sampleModelPath, "--store", "checked")).status).toBe(0);
    expect((await sllm("verify", "--store", "checked")).status).toBe(0);
    const wrong = await sllm("verify", "not-a-digest", "--store", "checked");
    expect(wrong).toMatchObject({ status: 2, err: expect.stringContaining("is no digest") });
  });

  test("files of the folder it is called in have no say over the command", async () => {
    const strange = mkdtempSync(path.join(folder, "strange-"));
    writeFileSync(path.join(strange, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(path.join(strange, "preload.ts"), 'console.log("preloaded");\n');
    writeFileSync(path.join(strange, ".env"), "SLLM_CONFIG=missing.yaml\n");
    const version = await runProgram(programs.entry, ["--version"], { folder: strange });
    expect(version.out.trim()).toMatch(/^\d+\.\d+\.\d+$/);
    const list = await runProgram(programs.entry, ["ls", "--url", "http://127.0.0.1:1"], { folder: strange });
    expect(list.err).toContain("no gateway answers");
  });

  test("the command works through a symbolic link and passes its exit status on", async () => {
    const link = path.join(folder, "sllm");
    const [node, entry] = programs.entry;
    symlinkSync(entry, link);
    const version = await runProgram([node, link], ["--version"], { folder });
    expect(version).toMatchObject({ status: 0, err: "" });
    expect(version.out.trim()).toMatch(/^\d+\.\d+\.\d+$/);
    expect((await runProgram([node, link], ["no-such-command"], { folder })).status).toBe(2);
  });
});

function commandOf(pid: number): string {
  return Bun.spawnSync(["tr", "\\0", " "], { stdin: Bun.file(`/proc/${pid}/cmdline`) }).stdout.toString();
}
