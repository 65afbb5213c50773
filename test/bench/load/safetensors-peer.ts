/**
 * A loader outside libllama, used where the machine has it: `safetensors` with `torch` in Python, from the virtual
 * environment in the git-ignored test/.cache/python or else from the machine's own `python3`.
 */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readSync, renameSync, statSync, writeSync } from "node:fs";
import path from "node:path";
import { repositoryRoot } from "../../support/processes.ts";
import type { Case } from "./cases.ts";

export interface SafetensorsPeer {
  readonly file: string;
  readonly bytes: number;
  load(): { readonly ready_ms: number; readonly cpu_ms: number };
}

/** Loads all tensors and touches each page of them: `load_file` alone only maps the file. */
const loadScript = `
import json, resource, sys, time
import torch
from safetensors.torch import load_file
cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
began, cpu_began = time.perf_counter(), cpu()
tensors = load_file(sys.argv[1])
for tensor in tensors.values():
    tensor.view(-1).view(torch.uint8)[::4096].sum().item()
print(json.dumps({"ready_ms": (time.perf_counter() - began) * 1e3, "cpu_ms": (cpu() - cpu_began) * 1e3}))
`;

const dtypes: Readonly<Record<string, string>> = { F32: "F32", F16: "F16", BF16: "BF16" };

function python(): string {
  const own = path.join(repositoryRoot, "test/.cache/python/bin/python3");
  return existsSync(own) ? own : "python3";
}

/** Writes the case in this format if need be. Null, and a word why, where it cannot take part. */
export function safetensorsPeer(it: Case, say: (text: string) => void): SafetensorsPeer | null {
  const program = python();
  const found = spawnSync(program, ["-c", "import torch, safetensors.torch"], { encoding: "utf8" });
  if (found.error || found.status !== 0) {
    say(`peer safetensors: skipped, ${program} cannot import torch and safetensors`);
    return null;
  }
  const odd = it.manifest.tensors.find(({ dtype }) => dtypes[dtype] === undefined);
  if (odd !== undefined) {
    say(`peer safetensors: skipped for ${it.name}, the format has no type ${odd.dtype}`);
    return null;
  }
  const file = it.gguf.replace(/\.gguf$/, ".safetensors");
  if (!existsSync(file)) {
    say(`writing ${path.basename(file)} ...`);
    writeSafetensors(it, file);
  }
  const load = () => {
    const result = spawnSync(program, ["-c", loadScript, file], { encoding: "utf8" });
    if (result.status !== 0) throw new Error(`safetensors: ${result.stderr}`);
    return JSON.parse(result.stdout) as { ready_ms: number; cpu_ms: number };
  };
  return { file, bytes: statSync(file).size, load };
}

/** The same tensors as weights.bin, without its padding: 8 bytes of length, a header in JSON, the data. */
export function writeSafetensors({ manifest, weights }: Case, file: string): void {
  const entries: Record<string, object> = {};
  let offset = 0;
  for (const { name, dtype, shape, bytes } of manifest.tensors) {
    entries[name] = {
      dtype: dtypes[dtype],
      // GGUF writes the fastest dimension first, safetensors last.
      shape: shape.toReversed(),
      data_offsets: [offset, offset + bytes],
    };
    offset += bytes;
  }
  const text = JSON.stringify(entries);
  const header = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const draft = `${file}.draft`;
  const from = openSync(weights, "r");
  const to = openSync(draft, "w");
  try {
    writeSync(to, new BigUint64Array([BigInt(header.length)]));
    writeSync(to, header);
    for (const tensor of manifest.tensors) copyRange(from, to, tensor.offset, tensor.bytes);
  } finally {
    closeSync(from);
    closeSync(to);
  }
  renameSync(draft, file);
}

function copyRange(from: number, to: number, offset: number, bytes: number): void {
  const buffer = new Uint8Array(Math.min(bytes, 16 << 20));
  for (let done = 0; done < bytes; ) {
    const n = readSync(from, buffer, 0, Math.min(buffer.length, bytes - done), offset + done);
    if (n === 0) throw new Error("weights.bin ends too early");
    for (let written = 0; written < n; ) written += writeSync(to, buffer, written, n - written);
    done += n;
  }
}
