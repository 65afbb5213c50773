/**
 * The canonical order of a model's tensors: that in which the engine library lays them out. The library is asked in
 * a process of its own, because a hostile header can end the process it is parsed in.
 */
import { spawn } from "node:child_process";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { libraryWords } from "../../library-words.ts";
import { cancelled } from "./cancelled.ts";
import type { GgufPair, GgufTensor } from "./gguf-reader.ts";
import { mergeHeader } from "./gguf-writer.ts";
import { layoutReply } from "./layout-reply.ts";
import { engineChildEnvironment, type NativePaths } from "./native-paths.ts";

/** Gives the names of a model's tensors in the engine's order. The path names a complete, sparse GGUF file. */
export type LayoutPlanner = (
  headerPath: string,
  signal: AbortSignal | undefined,
) => Promise<readonly string[]>;

/** Enough for the library's words before a crash report of the runtime. */
const keptStderrChars = 8_000;

/**
 * Tensors in canonical order: the engine's, then by name those that it does not use. The order depends on the model
 * alone, not on the order in the source. `folder` takes a temporary file.
 * Errors: those of the planner, `checkpoint_unsupported`, `io_error`.
 */
export async function canonicalOrder<T extends GgufTensor>(
  pairs: readonly GgufPair[],
  tensors: readonly T[],
  folder: string,
  plan: LayoutPlanner,
  signal: AbortSignal | undefined,
): Promise<T[]> {
  const sorted = tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const draft = mergeHeader(pairs, sorted);
  const path = join(folder, "draft.gguf");
  await writeFile(path, draft.bytes);
  await truncate(path, draft.bytes.length + draft.weights_bytes);
  return orderTensors(sorted, await plan(path, signal));
}

/** Sorts by a list of names; a name may repeat (one tensor in two roles) and counts where it comes first. */
export function orderTensors<T extends GgufTensor>(tensors: readonly T[], names: readonly string[]): T[] {
  const left = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const known = new Set(left.keys());
  const ordered: T[] = [];
  for (const name of names) {
    if (!known.has(name)) {
      const message = `The engine library lays out ${JSON.stringify(name)}, which the file does not hold.`;
      throw new SllmError("checkpoint_unsupported", message);
    }
    const tensor = left.get(name);
    if (tensor === undefined) continue;
    left.delete(name);
    ordered.push(tensor);
  }
  return [...ordered, ...left.values()];
}

/** A planner that runs the layout program with the runtime of this process. */
export function childLayoutPlanner(native: NativePaths): LayoutPlanner {
  return async (headerPath, signal) => {
    const program = join(import.meta.dirname, "layout-program.ts");
    const runtime = "deno" in process.versions ? ["run", "--quiet", "--allow-all"] : [];
    const args = [...runtime, program, native.library, native.engine_libraries, headerPath];
    return readReply(await runChild(process.execPath, args, signal));
  };
}

interface ChildEnd {
  readonly stdout: string;
  /** The last of what it wrote to stderr. */
  readonly stderr: string;
  /** How it ended when not with status 0. */
  readonly failure: string | null;
}

function readReply(end: ChildEnd): readonly string[] {
  const reply = end.failure === null ? layoutReply.safeParse(parseJson(end.stdout)) : null;
  if (!reply?.success) {
    const words = lastWords(end.stderr);
    const how = end.failure ?? "gave no answer";
    throw new SllmError(
      "checkpoint_unsupported",
      `The engine library ${how} on this model's header.${words}`,
    );
  }
  if ("error" in reply.data) throw new SllmError(reply.data.error.code, reply.data.error.message);
  return reply.data.order.tensors;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON is one of the answers that the caller refuses.
    return null;
  }
}

function lastWords(stderr: string): string {
  const words = libraryWords(stderr.split("\n")).slice(-5).join(" | ");
  return words === "" ? "" : ` Its last words: ${words.slice(-500)}`;
}

function runChild(
  command: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
): Promise<ChildEnd> {
  return new Promise((resolve, reject) => {
    const env = engineChildEnvironment();
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env });
    let stdout = "";
    let stderr = "";
    let stopped: string | null = null;
    const stop = (why: string) => {
      stopped ??= why;
      child.kill("SIGKILL");
    };
    const onAbort = () => stop("was stopped");
    const timer = setTimeout(() => stop("took too long"), limits.layout_plan_ms);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (stdout.length > limits.layout_reply_bytes) stop("said too much");
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-keptStderrChars);
    });
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
    child.on("error", (cause) => {
      settle();
      const message = `Cannot start a process for the engine library: ${cause.message}.`;
      reject(new SllmError("native_unavailable", message, { cause }));
    });
    child.on("close", (code, killedBy) => {
      settle();
      if (signal?.aborted) return reject(cancelled());
      const death = killedBy === null ? `ended with status ${code}` : `died (${killedBy})`;
      resolve({ stdout, stderr, failure: stopped ?? (code === 0 ? null : death) });
    });
  });
}
