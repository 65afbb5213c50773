/** Starts, watches and ends the embedded database: one folder, one thread, one connection. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { type Database, openDatabase } from "../store/database.ts";
import { lockFolder } from "./folder-lock.ts";

/** What the thread of database-thread.ts is given, */
export interface ThreadData {
  readonly folder: string;
  readonly socket_path: string;
}

/** and what it says. The one message to it, whatever it holds, ends server and database, not the thread itself. */
export type ThreadMessage = { readonly event: "ready" } | { readonly event: "closed" };

/** A unix socket's path must fit 108 bytes on Linux, 104 on macOS, with its ending zero. */
const socketPathBytes = 100;

/** How long the thread may take to write its last pages. */
const closeMs = 10_000;

export interface EmbeddedDatabase extends Database {
  /** Rejects when the thread dies without having been closed; the gateway cannot go on then. */
  readonly died: Promise<never>;
}

/**
 * Opens the database in `<data_dir>/database`, making it at the first start (some seconds). The folder belongs to
 * this process alone until it ends; another process gets an Error that names this one.
 */
export async function openEmbeddedDatabase(data_dir: string): Promise<EmbeddedDatabase> {
  const folder = resolve(data_dir, "database");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = lockFolder(resolve(data_dir, "database.lock"));
  const socket = socketPath(data_dir);
  try {
    rmSync(socket.path, { force: true });
    const thread = startThread({ folder, socket_path: socket.path });
    await thread.ready;
    const database = openDatabase("postgres://postgres@localhost/postgres", {
      max: 1,
      socket_path: socket.path,
    });
    return {
      db: database.db,
      died: thread.died,
      close: async (within_ms) => {
        await database.close(within_ms);
        await thread.close();
        socket.remove();
        lock.release();
      },
    };
  } catch (thrown) {
    socket.remove();
    lock.release();
    throw thrown;
  }
}

/** Beside the folder, so that nobody else can reach it; in a private temporary folder where that path is too long. */
function socketPath(data_dir: string): { path: string; remove: () => void } {
  const path = resolve(data_dir, "database.sock");
  if (Buffer.byteLength(path) <= socketPathBytes)
    return { path, remove: () => rmSync(path, { force: true }) };
  const folder = mkdtempSync(join(tmpdir(), "sllm-"));
  return {
    path: join(folder, "database.sock"),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

interface Thread {
  readonly ready: Promise<void>;
  readonly died: Promise<never>;
  close(): Promise<void>;
}

function startThread(data: ThreadData): Thread {
  // A bundle holds the thread as a file of its own beside the entry.
  const file = import.meta.url.endsWith(".ts") ? "./database-thread.ts" : "./database-thread.js";
  const worker = new Worker(new URL(file, import.meta.url), { workerData: data });
  let closing = false;
  const exited = new Promise<void>((resolve, reject) => {
    worker.once("error", reject);
    worker.once("exit", () => resolve());
  });
  const died = (async (): Promise<never> => {
    let cause: unknown;
    try {
      await exited;
    } catch (error) {
      cause = error;
    }
    if (closing) return new Promise<never>(() => undefined);
    throw new Error("the embedded database ended", { cause });
  })();
  // Whoever does not listen must not be ended by an unhandled rejection.
  died.catch(() => undefined);
  const said = (event: ThreadMessage["event"]) =>
    new Promise<void>((resolve) => {
      worker.on("message", (message: ThreadMessage) => {
        if (message.event === event) resolve();
      });
    });
  return {
    ready: Promise.race([said("ready"), died]),
    died,
    close: async () => {
      closing = true;
      const closed = said("closed");
      worker.postMessage("close");
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, closeMs);
      });
      await Promise.race([closed, late]);
      clearTimeout(timer);
      await worker.terminate();
    },
  };
}
