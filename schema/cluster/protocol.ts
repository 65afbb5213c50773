/** Version and paths of the protocol between gateways and workers. */

/** Raised when a message changes its meaning; gateway and worker must agree exactly. */
export const protocolVersion = 1 as const;

/** Paths at the gateway, called by workers with the cluster token. */
export const gatewayPaths = {
  register: "/cluster/v1/register",
  heartbeat: "/cluster/v1/heartbeat",
} as const;

/** Paths at the worker, called by gateways with the cluster token (except livez). */
export const workerPaths = {
  livez: "/livez",
  status: "/v1/status",
  instances: "/v1/instances",
  /** Below it, `/{id}/events` for further readers. */
  generations: "/v1/generations",
  /** Generations that other workers send here. */
  arrivals: "/v1/arrivals",
  embeddings: "/v1/embeddings",
  /** POST: the process ends when its streams have left. */
  drain: "/v1/drain",
  loads: "/v1/loads",
  preloads: "/v1/preloads",
} as const;

/**
 * Names, in calls of gateways to workers, the incarnation that is meant. A worker that is another process refuses the call
 * with `stale_epoch`; left out, any process will do.
 */
export const incarnationHeader = "x-sllm-incarnation";
