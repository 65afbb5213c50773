/** The worker on Deno; run it with `deno run -A`. */
import { type Host, runWorker } from "./run.ts";

/** The part of Deno's API that is used here; the project's types are those of Bun. */
interface DenoServe {
  serve(
    options: { hostname: string; port: number; onListen: () => void },
    handle: (request: Request) => Response | Promise<Response>,
  ): { readonly addr: { readonly port: number }; shutdown(): Promise<void> };
}

function denoServe(): DenoServe {
  const { Deno: deno } = globalThis as { Deno?: DenoServe };
  if (!deno) throw new Error("worker/main/deno.ts runs under Deno only");
  return deno;
}

const host: Host = {
  serve: (handle, { host: hostname, port }) => {
    // Silent: standard output belongs to the ready line.
    const server = denoServe().serve({ hostname, port, onListen: () => {} }, handle);
    return Promise.resolve({ port: server.addr.port, stop: () => server.shutdown() });
  },
  scriptArgs: (script) => ["run", "--quiet", "--allow-all", script],
};

await runWorker(host);
