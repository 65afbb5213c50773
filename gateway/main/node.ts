/** The gateway on Node 20 and later; bundled by bundle.ts, since Node does not run TypeScript everywhere. */
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { Agent, fetch as undiciFetch } from "undici";
import type { Fetch } from "../workers/http-worker-client.ts";
import { type Handler, type Host, runGateway, type Server } from "./run.ts";

/** Streams may be silent for long, and a worker answers an unload when the engine is gone. */
const agent = new Agent({ bodyTimeout: 0, headersTimeout: 0 });

// The types of undici and of the platform describe the same standard but do not know each other.
const fetchWithAgent = undiciFetch as unknown as (
  url: string,
  init: RequestInit & { dispatcher: Agent },
) => Promise<Response>;
const fetch: Fetch = (url, init) => fetchWithAgent(url, { ...init, dispatcher: agent });

/** How soon a draining server notices that a stream has ended. */
const idleCheck_ms = 20;

async function serve(handle: Handler, { host, port }: { host: string; port: number }): Promise<Server> {
  const server = createAdaptorServer({ fetch: handle });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  // With a host and a port the address is never the path of a socket.
  const address = server.address() as AddressInfo;
  return {
    port: address.port,
    drain: () =>
      new Promise((resolve) => {
        // A connection becomes idle when its last stream has ended, and would then be kept alive for a while.
        const closeIdle = setInterval(() => {
          if ("closeIdleConnections" in server) server.closeIdleConnections();
        }, idleCheck_ms);
        server.close(() => {
          clearInterval(closeIdle);
          resolve();
        });
      }),
    cut: () => {
      if ("closeAllConnections" in server) server.closeAllConnections();
    },
  };
}

const host: Host = { serve, fetch };

await runGateway(host);
