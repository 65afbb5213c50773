/** The models of the benchmarks and their checkpoints: made once, kept in the git-ignored test/.cache/load. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import type { Manifest } from "../../../schema/checkpoint/manifest.ts";
import { asModel, convertGguf, readCheckpoint } from "../../../worker/checkpoints/import.ts";
import { type ModelWish, makeModel } from "../../models/make-model.ts";
import { sampleModelPath } from "../../support/cluster.ts";
import { repositoryRoot } from "../../support/processes.ts";

export interface Case {
  readonly name: string;
  readonly gguf: string;
  /** The folder of all checkpoints. */
  readonly store: string;
  readonly digest: string;
  /** The checkpoint's folder. */
  readonly checkpoint: string;
  readonly weights: string;
  readonly header: string;
  readonly manifest: Manifest;
  /** Tensors and chunks as the native programs read them; see native/test/bench_ablation.cc. */
  readonly plan: string;
}

type CaseWish = Omit<ModelWish, "out" | "seed"> & { readonly name: string };

/**
 * Tensors are at most as many as layers allow: libllama takes 512, and gemma3 has 13 tensors in each, the most of the
 * architectures that the generator knows. 6,658 tensors of 86 kB on average.
 */
const loadWishes: readonly CaseWish[] = [
  { name: "random-4gb", architecture: "llama", type: "f16", size_bytes: 4e9, vocabulary: 32_000 },
  { name: "many-small", architecture: "gemma3", type: "f16", size_bytes: 0.57e9, layers: 512 },
  { name: "random-0.5gb", architecture: "llama", type: "f16", size_bytes: 0.5e9 },
];

/** Some 0.35 billion parameters each, for the benchmark of generation. */
const engineWishes: readonly CaseWish[] = [
  { name: "q8_0-0.35b", architecture: "llama", type: "q8_0", size_bytes: 0.372e9 },
  { name: "q4_k-0.35b", architecture: "llama", type: "q4_k", size_bytes: 0.197e9 },
];

/** The trained model of the repository: small enough that a start is all there is to its first token. */
export const sampleName = "tiny-shakespeare";

export const caseNames: readonly string[] = loadWishes.map(({ name }) => name);
export const engineCaseNames: readonly string[] = engineWishes.map(({ name }) => name);

const folder = path.join(repositoryRoot, "test/.cache/load");
const store = path.join(folder, "checkpoints");

/** Makes what is missing of a case. */
export async function prepareCase(name: string, say: (text: string) => void): Promise<Case> {
  const wishes = [...loadWishes, ...engineWishes];
  const wish = wishes.find((other) => other.name === name);
  if (wish === undefined && name !== sampleName) {
    throw new Error(`no case ${name}; there are ${[sampleName, ...wishes.map((w) => w.name)].join(", ")}`);
  }
  mkdirSync(folder, { recursive: true });
  const gguf = path.join(folder, `${name}.gguf`);
  if (!existsSync(gguf)) {
    say(`writing ${name}.gguf ...`);
    // A run that was stopped must not leave half a model under the final name.
    const draft = path.join(folder, `${name}.draft.gguf`);
    if (wish === undefined) copyFileSync(sampleModelPath, draft);
    else {
      const { name: _, ...model } = wish;
      await makeModel({ ...model, out: draft, seed: 1 });
    }
    renameSync(draft, gguf);
  }
  const found = asModel(await readCheckpoint(await checkpointOf(gguf, say)));
  const { digest, manifest, header_path, weights_path, directory } = found;
  const plan = path.join(folder, `${name}.plan`);
  writeFileSync(plan, planText(manifest));
  const files = { gguf, checkpoint: directory, weights: weights_path, header: header_path, plan };
  return { name, store, digest, manifest, ...files };
}

/** The checkpoint's folder; a note beside the model keeps a second run from reading gigabytes to find it again. */
async function checkpointOf(gguf: string, say: (text: string) => void): Promise<string> {
  const note = `${gguf}.checkpoint`;
  const stamp = `${statSync(gguf).size} ${statSync(gguf).mtimeMs}`;
  if (existsSync(note)) {
    const [directory = "", of] = readFileSync(note, "utf8").split("\n");
    if (of === stamp && existsSync(directory)) return directory;
  }
  say(`converting ${path.basename(gguf)} ...`);
  const { directory } = await convertGguf({ source: gguf, store_dir: store });
  writeFileSync(note, `${directory}\n${stamp}`);
  return directory;
}

function planText({ tensors, weights }: Manifest): string {
  const lines = tensors.map(({ offset, bytes }) => `tensor ${offset} ${bytes}`);
  const chunks = weights.chunks.map(({ xxh3 }, i) => {
    const offset = i * weights.chunk_bytes;
    return `chunk ${offset} ${Math.min(weights.chunk_bytes, weights.bytes - offset)} ${xxh3}`;
  });
  return `${[...lines, ...chunks].join("\n")}\n`;
}
