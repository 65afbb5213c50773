/** The gateway on Deno; run it with `deno run -A`. */
import { type Host, runGateway } from "./run.ts";

/** The part of Deno's API that is used here; the project's types are those of Bun. */
interface DenoServe {
  serve(
    options: { hostname: string; port: number; signal: AbortSignal; onListen: () => void },
    handle: (request: Request) => Response | Promise<Response>,
  ): {
    readonly addr: { readonly port: number };
    shutdown(): Promise<void>;
    readonly finished: Promise<void>;
  };
}

function denoServe(): DenoServe {
  const { Deno: deno } = globalThis as { Deno?: DenoServe };
  if (!deno) throw new Error("gateway/main/deno.ts runs under Deno only");
  return deno;
}

const host: Host = {
  serve: (handle, { host: hostname, port }) => {
    const cut = new AbortController();
    // Silent: standard output belongs to the ready line.
    const options = { hostname, port, signal: cut.signal, onListen: () => {} };
    const server = denoServe().serve(options, handle);
    return Promise.resolve({
      port: server.addr.port,
      drain: async () => {
        await Promise.race([server.shutdown(), server.finished]);
      },
      cut: () => cut.abort(),
    });
  },
  fetch: (url, init) => fetch(url, init),
};

await runGateway(host);
