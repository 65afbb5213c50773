/** What `sllm simulate` says of bad input and of a small cluster, called as the dispatcher calls it. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../run.ts";
import { plan } from "./plan.ts";
import { simulate } from "./simulate.ts";

const folder = mkdtempSync(join(tmpdir(), "sllm-simulate-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const cluster = `
hosts:
  - { name: one, count: 1, devices: 1, device_memory_bytes: 24e9, host_memory_bytes: 40e9, disk_bytes: 1e12, disk_bytes_per_s: 5e9 }
models:
  - { name: m, weights_bytes: 13e9, kv_bytes_per_token: 500000, prefill_ms_per_token: 0.5, token_ms: 30 }
`;

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** The exit status and what was said to people. */
const call = (...line: string[]) => callCommand("simulate", ...line);
async function callCommand(...line: string[]) {
  let err = "";
  const terminal = {
    out: () => {},
    err: (text: string) => {
      err += text;
    },
  };
  return { status: await run([simulate, plan], "1.2.3", line, terminal), err };
}

describe("simulate", () => {
  test("an unknown policy lists the known ones", async () => {
    const { status, err } = await call(write("c.yaml", cluster), "--policy", "fifo");
    expect(status).toBe(2);
    expect(err).toContain(
      "no policy 'fifo'; known are startup-optimal, locality, random, preemptive, download-first",
    );
  });

  test("a cluster file with a mistake names the field, one that is missing the file", async () => {
    const wrong = await call(write("w.yaml", cluster.replace("count: 1", "count: 0")));
    expect(wrong).toMatchObject({ status: 1 });
    expect(wrong.err).toContain("hosts[0].count");
    const typo = await call(write("t.yaml", cluster.replace("devices:", "device:")));
    expect(typo.err).toContain('Unrecognized key: "device"');
    expect((await call(join(folder, "none.yaml"))).err).toContain("none.yaml cannot be read");
  });

  test("a bad row of a trace is named by file and line, a trace of unknown columns by what is known", async () => {
    const file = write("c.yaml", cluster);
    const rows = await call(file, "--trace", write("r.csv", "t_s,in_tokens,out_tokens\n0,1,1\n1,one,1\n"));
    expect(rows.err).toContain("r.csv:3: 'in_tokens' is 'one'");
    const columns = await call(file, "--trace", write("u.csv", "time,size\n0,1\n"));
    expect(columns.err).toContain("Requests have t_s, in_tokens, out_tokens");
  });

  test("a model that the cluster can never serve is refused before it starts", async () => {
    const file = write("l.yaml", cluster.replace("weights_bytes: 13e9", "weights_bytes: 30e9"));
    const { status, err } = await call(file, "--duration", "10m");
    expect(status).toBe(1);
    expect(err).toContain("'m' needs 3");
    expect(err).toContain("(model_too_large)");
    expect(err).toContain("cluster's file");
    // Nothing on disks and nothing fetched: one policy of two that cannot is enough.
    const none = write("n.yaml", `${cluster}system: { fetch: false }`);
    const two = await call(none, "--policy", "random,download-first", "--duration", "10m");
    expect(two).toMatchObject({ status: 1 });
    expect(two.err).toContain("checkpoint_unavailable");
  });

  test("neither is there a plan for it, with the same words; for one of several policies there is", async () => {
    const file = write("l.yaml", cluster.replace("weights_bytes: 13e9", "weights_bytes: 30e9"));
    const { status, err } = await callCommand("plan", file, "--duration", "10m");
    expect(status).toBe(1);
    expect(err).toContain("'m' needs 3");
    const none = write("n.yaml", `${cluster}system: { fetch: false }`);
    const some = ["--policy", "random,download-first", "--rps", "0.1", "--slo", "5m", "--duration", "10m"];
    expect(await callCommand("plan", none, ...some)).toMatchObject({ status: 0 });
  });

  test("the picture of start-up times holds a line for each policy", async () => {
    const picture = join(folder, "cdf.svg");
    const { status } = await call(
      write("c.yaml", cluster),
      "--policy",
      "startup-optimal,random",
      "--duration",
      "5m",
      "--cdf",
      picture,
    );
    expect(status).toBe(0);
    expect(readFileSync(picture, "utf8").match(/<path fill="none"/g)).toHaveLength(2);
  });
});
