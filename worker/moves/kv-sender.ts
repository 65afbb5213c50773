/** Sends the rows of a generation's KV cache to the worker that it moves to: part by part, the next one read meanwhile. */
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Destination } from "./destination.ts";
import type { KvFile } from "./kv-files.ts";

export interface KvSource {
  /** Bytes of a token's rows, and whose rows they are. */
  readonly token_bytes: number;
  readonly fingerprint: string;
  /** An empty file that engine and worker can open. */
  file(): Promise<KvFile>;
  /** Writes rows of tokens there; resolves with their digest. Throws where the engine cannot. */
  save(path: string, from: number, to: number): Promise<string>;
}

export interface KvSending {
  readonly source: KvSource;
  readonly destination: Pick<Destination, "kv">;
  readonly generation_id: GenerationId;
  readonly epoch: number;
  /** The first ones, whose rows go. */
  readonly tokens: number;
  readonly signal: AbortSignal;
}

interface Part {
  readonly from: number;
  readonly to: number;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

/** Resolves with the bytes that were sent, all of them unless the signal came first. Throws what either side refuses. */
export async function sendKv({ source, destination, signal, ...sending }: KvSending): Promise<number> {
  const { generation_id, epoch, tokens } = sending;
  const step = Math.max(1, Math.floor(limits.kv_part_bytes / source.token_bytes));
  const file = await source.file();
  const read = async (from: number): Promise<Part | null> => {
    if (from >= tokens) return null;
    const to = Math.min(tokens, from + step);
    const digest = await source.save(file.path, from, to);
    return { from, to, digest, bytes: await file.read() };
  };
  let sent = 0;
  let next = read(0);
  try {
    for (let part = await next; part !== null && !signal.aborted; part = await next) {
      next = read(part.to);
      // Looked at in the next turn, or not at all when this part fails.
      next.catch(() => undefined);
      const { bytes, ...about } = part;
      await destination.kv(generation_id, { epoch, ...about }, bytes);
      sent += bytes.length;
    }
    return sent;
  } finally {
    await next.catch(() => null);
    await file.remove();
  }
}
