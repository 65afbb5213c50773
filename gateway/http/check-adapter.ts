/** An adapter is given to a model that it fits, tensor by tensor: no engine finds out at a request. Pure. */
import type { AdapterManifest, Manifest, TensorEntry } from "../../schema/checkpoint/manifest.ts";
import { taskOf } from "../../schema/checkpoint/manifest.ts";
import type { ModelRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";

const factorName = /^(.+)\.lora_([ab])$/;

/**
 * Throws `adapter_mismatch` naming what does not fit, `task_unsupported` for a model that makes vectors, and
 * `state_conflict` for a deterministic one, whose mode knows no adapters.
 */
export function checkAdapter(
  row: Pick<ModelRow, "model_id" | "deterministic">,
  model: Manifest,
  { adapter, tensors }: AdapterManifest,
): void {
  const { model_id, deterministic } = row;
  if (taskOf(model.model) !== "generate") {
    const message = `The model '${model_id}' does not generate: it takes no adapters.`;
    throw new SllmError("task_unsupported", message, { param: "model" });
  }
  if (deterministic) {
    const message = `The model '${model_id}' is deterministic: such models take no adapters.`;
    throw new SllmError("state_conflict", message, { param: "model" });
  }
  const { architecture } = model.model;
  if (adapter.architecture !== architecture) {
    throw mismatch(
      `The adapter is for ${adapter.architecture} models; '${model_id}' is a ${architecture} model.`,
    );
  }
  const targets = new Map(model.tensors.map((tensor) => [tensor.name, tensor]));
  for (const factor of tensors) checkFactor(model_id, targets, factor);
}

function checkFactor(
  model_id: string,
  targets: ReadonlyMap<string, TensorEntry>,
  { name, shape }: TensorEntry,
): void {
  const [, target, factor] = factorName.exec(name) ?? [];
  if (target === undefined) return; // The engine passes such tensors by; the import let no others through.
  const wanted = targets.get(target);
  if (wanted === undefined) {
    throw mismatch(
      `The adapter changes the tensor '${target}', which the model '${model_id}' does not have.`,
    );
  }
  const { at, of } = place(target, factor);
  const [found, expected] = [shape[at] ?? 1, wanted.shape[of] ?? 1];
  if (found !== expected) {
    const is = `The adapter's tensor '${name}' has ${found} elements in dimension ${at}`;
    throw mismatch(`${is}; '${target}' of the model '${model_id}' has ${expected}.`);
  }
  if ((shape[2] ?? 1) !== (wanted.shape[2] ?? 1)) {
    const is = `The adapter's tensor '${name}' is for ${shape[2] ?? 1} experts`;
    throw mismatch(`${is}; '${target}' of the model '${model_id}' has ${wanted.shape[2] ?? 1}.`);
  }
}

/** Which dimension of a factor must be which of its tensor; the other one is the rank. Embeddings are looked up. */
function place(target: string, factor: string | undefined): { readonly at: number; readonly of: number } {
  const isA = factor === "a";
  if (target === "token_embd.weight") return isA ? { at: 1, of: 1 } : { at: 1, of: 0 };
  return isA ? { at: 0, of: 0 } : { at: 1, of: 1 };
}

function mismatch(message: string): SllmError {
  return new SllmError("adapter_mismatch", message, { param: "manifest" });
}
