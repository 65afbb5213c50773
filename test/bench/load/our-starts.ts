/** Our own starts: runs engine-process.ts and reads what it measured. */
import path from "node:path";
import { engineLibrariesPath, nativeLibraryPath } from "../../support/native.ts";
import type { StartOutcome, StartWish } from "./engine-process.ts";
import { prompt } from "./programs.ts";

/** A process of engine-process.ts whose starts have all been measured and whose host copy is still there. */
export interface RunningStarts {
  readonly outcomes: readonly StartOutcome[];
  /** Resolves when the process is gone. */
  end(): Promise<void>;
}

/** `hostCopy` null: one start from disk. `hasSkeleton`: the starts from a skeleton and from being parked. */
export async function start(
  checkpoint: string,
  hostCopy: string | null,
  hasSkeleton = false,
): Promise<RunningStarts> {
  const wish: StartWish = {
    library: nativeLibraryPath,
    engine_libraries: engineLibrariesPath,
    checkpoint,
    host_copy: hostCopy,
    has_skeleton: hasSkeleton,
    prompt,
    context_tokens: 2048,
    threads: 0,
  };
  const script = path.join(import.meta.dir, "engine-process.ts");
  const child = Bun.spawn([process.execPath, script, JSON.stringify(wish)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const outcomes = JSON.parse(await firstLine(child.stdout)) as StartOutcome[];
  return {
    outcomes,
    end: async () => {
      await child.stdin.end();
      const status = await child.exited;
      if (status !== 0) throw new Error(`the engine's process ended with ${status}`);
    },
  };
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const piece of stream) {
    text += decoder.decode(piece, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  throw new Error("the engine's process ended before its first token");
}
