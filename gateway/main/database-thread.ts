/**
 * The thread of the embedded database: PGlite in a folder, spoken to through a unix socket in the wire protocol of
 * Postgres, so that the gateway knows one driver and queries never block the thread that streams tokens.
 */
import { chmodSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";
import type { ThreadData, ThreadMessage } from "./embedded-database.ts";

async function serve(port: NonNullable<typeof parentPort>, data: ThreadData): Promise<void> {
  const database = await PGlite.create(data.folder);
  // One session is all that PGlite has, so there is one client; the second place is for its reconnection.
  const server = new PGLiteSocketServer({ db: database, path: data.socket_path, maxConnections: 2 });
  await server.start();
  chmodSync(data.socket_path, 0o600);
  const send = (message: ThreadMessage) => port.postMessage(message);
  // The one message that comes is the request to end.
  port.once("message", async () => {
    await server.stop();
    await database.close();
    // Whoever asked ends the thread now: closing the port by itself is not possible on every runtime.
    send({ event: "closed" });
  });
  send({ event: "ready" });
}

if (parentPort === null) throw new Error("database-thread runs in a thread of its own");
await serve(parentPort, workerData);
