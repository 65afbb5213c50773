/** The gateway on Bun. */
import { type Host, runGateway } from "./run.ts";

const host: Host = {
  serve: (handle, { host: hostname, port }) => {
    // idleTimeout 0: the keep-alive comments of our streams are the only rule of silence.
    const server = Bun.serve({ hostname, port, idleTimeout: 0, fetch: handle });
    return Promise.resolve({
      port: server.port ?? port,
      drain: () => server.stop(),
      cut: () => void server.stop(true),
    });
  },
  // Bun's own limit of five minutes would end slow loads.
  fetch: (url, init) => fetch(url, { ...init, timeout: false }),
};

await runGateway(host);
