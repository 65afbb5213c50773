/**
 * Turns the ways in which we are told to end (Ctrl-C, SIGTERM, a closed terminal, a parent that died) into one
 * AbortSignal.
 */

/** In a terminal Ctrl-C reaches us from the terminal and from the script that started us: that is one Ctrl-C. */
const sameMs = 1_000;

/**
 * `signal` aborts at the first request to end. A second one, more than a second later, calls `onInsist`, for people
 * who do not want to wait.
 */
export function listenForStop(onInsist: () => void): { readonly signal: AbortSignal; stopListening(): void } {
  const controller = new AbortController();
  let first_ms: number | null = null;
  const onSignal = () => {
    const now_ms = performance.now();
    if (first_ms === null) {
      first_ms = now_ms;
      controller.abort();
    } else if (now_ms - first_ms > sameMs) {
      onInsist();
    }
  };
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) process.on(name, onSignal);
  const hasParentPipe = process.env.SLLM_EXIT_WITH_PARENT === "1";
  if (hasParentPipe) {
    process.stdin.once("end", () => controller.abort());
    process.stdin.resume();
  }
  return {
    signal: controller.signal,
    stopListening: () => {
      for (const name of names) process.off(name, onSignal);
      if (hasParentPipe) process.stdin.pause();
    },
  };
}
