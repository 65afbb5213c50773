/** Turns a worker's error response into the error that it means. */
import { type ErrorCode, errorCodes } from "../../schema/codes.ts";
import { errorBody, SllmError } from "../../schema/error.ts";
import type { WorkerAddress } from "../ports.ts";

/** Characters of an error response; the largest real ones quote fifty lines of an engine's log. */
const refusalChars = 256 * 1024;

const known: ReadonlySet<string> = new Set(errorCodes);

function isErrorCode(code: string): code is ErrorCode {
  return known.has(code);
}

/**
 * The worker's own code, message and field. What is not our envelope means `worker_unavailable`: something else
 * answers there. A refused cluster token is ours to mend, not the client's, and means the same.
 */
export async function toWorkerRefusal(worker: WorkerAddress, response: Response): Promise<SllmError> {
  const text = await readBounded(response);
  const parsed = errorBody.safeParse(parseJson(text));
  const code = parsed.data?.error.code ?? "";
  if (!parsed.success || !isErrorCode(code) || code === "invalid_api_key") {
    const message = `Worker ${worker.worker_id} refused a call with status ${response.status}.`;
    return new SllmError("worker_unavailable", message);
  }
  // Not a newer owner of the generation, but another process of the worker: what was asked for is not there any more.
  if (code === "stale_epoch" && parsed.data.error.param === "incarnation") {
    return new SllmError("worker_unavailable", `Worker ${worker.worker_id} is another process by now.`);
  }
  const retry_after_ms = Number(response.headers.get("retry-after-ms") ?? Number.NaN);
  return new SllmError(code, parsed.data.error.message, {
    param: parsed.data.error.param ?? undefined,
    retry_after_ms: Number.isFinite(retry_after_ms) ? retry_after_ms : undefined,
  });
}

/** The body's text as far as an error may reasonably go; the rest is left unread. */
async function readBounded(response: Response): Promise<string> {
  if (response.body === null) return "";
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > refusalChars) break;
  }
  return text;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON, so not our envelope: the caller treats null as exactly that.
    return null;
  }
}
