/** The worker on Bun. */
import { type Host, runWorker } from "./run.ts";

const host: Host = {
  serve: (handle, { host: hostname, port }) => {
    // idleTimeout 0: the keep-alive comments of our streams are the only rule of silence.
    const server = Bun.serve({ hostname, port, idleTimeout: 0, fetch: handle });
    return Promise.resolve({ port: server.port ?? port, stop: () => server.stop(true) });
  },
  scriptArgs: (script) => [script],
};

await runWorker(host);
