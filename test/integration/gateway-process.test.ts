/** The gateway as a process with its embedded database: starts, refusals, ends, and what survives them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { bundleGateway } from "../../gateway/main/bundle.ts";
import { deployedModelList } from "../../schema/api/admin.ts";
import { makeDeployRequest } from "../support/cluster-facts.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { makeDataFolder } from "../support/embedded-database.ts";
import { eventually } from "../support/eventually.ts";
import { createDatabase, startPostgres } from "../support/postgres.ts";
import { type RunningProcess, repositoryRoot, startProcess } from "../support/processes.ts";
import { WorkerServer } from "../support/worker-server.ts";

const cluster_token = "cluster-token-of-this-test";
const folders: string[] = [];
const running: RunningProcess[] = [];

afterAll(async () => {
  for (const gateway of running) await gateway.stop();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}, 30_000);

async function dataFolder(): Promise<string> {
  const folder = await makeDataFolder();
  folders.push(folder);
  return folder;
}

interface Start {
  readonly data_dir: string;
  readonly command?: readonly string[];
  readonly script?: string;
  readonly variables?: Readonly<Record<string, string>>;
}

async function start({
  data_dir,
  command,
  script = "gateway/main/bun.ts",
  variables,
}: Start): Promise<RunningProcess> {
  const gateway = await startProcess({
    ...(command === undefined ? {} : { command }),
    script,
    variables: {
      SLLM_DATA_DIR: data_dir,
      SLLM_CLUSTER_TOKEN: cluster_token,
      SLLM_GATEWAY_PORT: "0",
      ...variables,
    },
  });
  running.push(gateway);
  return gateway;
}

const deploy = async (gateway: RunningProcess) => {
  const deployment = makeDeployRequest();
  const response = await fetch(`${gateway.url}/admin/v1/models`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(deployment),
  });
  expect(response.ok).toBe(true);
  return deployment;
};
const deployedIds = async (gateway: RunningProcess) => {
  const response = await fetch(`${gateway.url}/admin/v1/models`);
  return deployedModelList.parse(await response.json()).data.map((model) => model.id);
};

describe("the state in the data folder", () => {
  let bundles: string;
  beforeAll(() => {
    const cache = path.join(repositoryRoot, "test/.cache");
    mkdirSync(cache, { recursive: true });
    bundles = mkdtempSync(path.join(cache, "bundles-"));
    folders.push(bundles);
  });

  const runtimes = [
    { name: "Bun", command: [process.execPath], script: async () => "gateway/main/bun.ts" },
    {
      name: "Deno",
      command: [path.join(repositoryRoot, "node_modules/.bin/deno"), "run", "-A"],
      script: async () => "gateway/main/deno.ts",
    },
    {
      name: "Node",
      command: [Bun.which("node") ?? "node"],
      script: async () => (await bundleGateway("node", bundles))[0] ?? "",
    },
  ];
  test.each(runtimes)(
    "survives an end and a sudden death of the gateway on $name",
    async ({ command, script }) => {
      const at: Start = { data_dir: await dataFolder(), command, script: await script() };
      const first = await start(at);
      const deployment = await deploy(first);
      expect(await first.stop()).toBe(0);
      expect(existsSync(path.join(at.data_dir, "database.lock"))).toBe(false);

      const second = await start(at);
      expect(await deployedIds(second)).toEqual([deployment.id]);
      const later = await deploy(second);
      second.kill("SIGKILL");
      await second.exited;

      const third = await start(at);
      expect((await deployedIds(third)).toSorted()).toEqual([deployment.id, later.id].toSorted());
      expect(await third.stop()).toBe(0);
    },
    60_000,
  );

  test("belongs to one process", async () => {
    const data_dir = await dataFolder();
    const first = await start({ data_dir });
    await expect(start({ data_dir })).rejects.toThrow(`in use by process ${first.pid}`);
    await deploy(first);
    expect(await first.stop()).toBe(0);
  }, 30_000);

  test("may lie in a folder whose path is too long for a socket", async () => {
    const data_dir = path.join(await dataFolder(), "a-folder-with-quite-a-name/".repeat(5));
    const gateway = await start({ data_dir });
    const deployment = await deploy(gateway);
    expect(await deployedIds(gateway)).toEqual([deployment.id]);
    expect(await gateway.stop()).toBe(0);
  }, 60_000);
});

describe("a start that cannot succeed", () => {
  test("names the settings that are wrong", async () => {
    const variables = { SLLM_GATEWAY_PORT: "99999", SLLM_GATEWAY_API_KEYS: "short" };
    const failed = start({ data_dir: "/nonexistent", variables });
    await expect(failed).rejects.toThrow("gateway.port (SLLM_GATEWAY_PORT)");
    await expect(start({ data_dir: "/nonexistent", variables: { SLLM_CLUSTER_TOKEN: "" } })).rejects.toThrow(
      "SLLM_CLUSTER_TOKEN",
    );
  }, 30_000);

  test("says that the database cannot be used", async () => {
    const variables = { SLLM_GATEWAY_DATABASE_URL: "postgres://postgres@127.0.0.1:1/none" };
    await expect(start({ data_dir: await dataFolder(), variables })).rejects.toThrow("ECONNREFUSED");
  }, 30_000);

  test("says how to apply migrations that it may not apply itself", async () => {
    const server = await startPostgres();
    const { url, drop } = await createDatabase(server);
    const variables = { SLLM_GATEWAY_DATABASE_URL: url, SLLM_GATEWAY_MIGRATIONS: "check" };
    const startIt = async () => start({ data_dir: await dataFolder(), variables });
    const failed = startIt();
    await expect(failed).rejects.toThrow("sllm migrate --database-url");
    await expect(failed).rejects.toThrow('"code":"migrations_missing"');
    const folder = await dataFolder();
    const migrated = await runProgram(programs.sllm, ["migrate", "--database-url", url], { folder });
    expect(migrated).toMatchObject({ status: 0, out: expect.stringContaining("Applied: 0000_initial") });
    const again = await runProgram(programs.sllm, ["migrate", "--database-url", url], { folder });
    expect(again).toMatchObject({ status: 0, out: "The database is up to date.\n" });
    expect(await (await startIt()).stop()).toBe(0);
    await drop();
    await server.stop();
  }, 30_000);

  test("says that the data folder holds no database", async () => {
    const data_dir = await dataFolder();
    rmSync(path.join(data_dir, "database/global"), { recursive: true });
    await expect(start({ data_dir })).rejects.toThrow("the embedded database ended");
    expect(existsSync(path.join(data_dir, "database.lock"))).toBe(false);
  }, 30_000);

  test("leaves the database in order when the port is taken", async () => {
    const data_dir = await dataFolder();
    const first = await start({ data_dir: await dataFolder() });
    const variables = { SLLM_GATEWAY_PORT: new URL(first.url).port };
    await expect(start({ data_dir, variables })).rejects.toThrow("in use");
    expect(existsSync(path.join(data_dir, "database.lock"))).toBe(false);
    expect(await (await start({ data_dir })).stop()).toBe(0);
  }, 30_000);
});

describe("an end", () => {
  const openStream = async (gateway: RunningProcess) => {
    const deployment = await deploy(gateway);
    const checkpoint = deployment.manifest.digest;
    const worker = await WorkerServer.start({ gateway_url: gateway.url, cluster_token, checkpoint });
    const response = await fetch(`${gateway.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: deployment.id, prompt: "Hi", stream: true }),
    });
    const reader = response.body?.getReader();
    await eventually("the generation runs", () => worker.generations.length > 0);
    return { worker, reader };
  };

  test("comes at once at the second signal, streams or not", async () => {
    const gateway = await start({ data_dir: await dataFolder() });
    const { worker, reader } = await openStream(gateway);
    gateway.kill("SIGINT");
    await eventually("the first signal is taken", () => gateway.log().includes('"stopping"'));
    gateway.kill("SIGINT");
    expect(await Promise.race([gateway.exited, Bun.sleep(5_000)])).toBe(0);
    await reader?.cancel().catch(() => undefined);
    await worker.stop();
  }, 30_000);

  test("that is asked for while the database is being made comes in order too", async () => {
    const data_dir = mkdtempSync(path.join(tmpdir(), "sllm-early-end-"));
    folders.push(data_dir);
    const variables = { SLLM_DATA_DIR: data_dir, SLLM_CLUSTER_TOKEN: cluster_token, SLLM_GATEWAY_PORT: "0" };
    const child = Bun.spawn([process.execPath, "gateway/main/bun.ts"], {
      cwd: repositoryRoot,
      env: { ...process.env, ...variables },
      stdout: "ignore",
      stderr: "ignore",
    });
    const lock = path.join(data_dir, "database.lock");
    await eventually("the database is being made", () => existsSync(lock));
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(existsSync(lock)).toBe(false);
  }, 30_000);

  test("comes with the end of the parent, if the parent wants so", async () => {
    const data_dir = await dataFolder();
    const variables = { SLLM_DATA_DIR: data_dir, SLLM_CLUSTER_TOKEN: cluster_token, SLLM_GATEWAY_PORT: "0" };
    const child = Bun.spawn([process.execPath, "gateway/main/bun.ts"], {
      cwd: repositoryRoot,
      env: { ...process.env, ...variables, SLLM_EXIT_WITH_PARENT: "1" },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
    });
    await child.stdout.getReader().read();
    await child.stdin.end();
    expect(await child.exited).toBe(0);
    expect(existsSync(path.join(data_dir, "database.lock"))).toBe(false);
  }, 30_000);
});
