/** `npm run experiments -- [names]`: runs them in virtual time and writes docs/experiments. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { cdfPicture } from "../../gateway/simulator/simulator.ts";
import { runAzure } from "./azure.ts";
import { fewRates_per_s, rates_per_s, type SizeName } from "./cases.ts";
import { optimumText, paperText, realityText, speedText } from "./documents.ts";
import { runOptimum } from "./optimum.ts";
import { paperShelves, runPaper } from "./paper.ts";
import { runReality } from "./reality.ts";
import { type CaseReport, caseTable, rawRows } from "./report.ts";
import { runSpeed } from "./speed.ts";

const root = path.join(import.meta.dirname, "../..");
const folder = path.join(root, "docs/experiments");
const rawFolder = path.join(folder, "raw");

const experiments: Readonly<Record<string, () => Promise<string | null>>> = {
  "paper-opt-6.7b": () => paper("opt-6.7b", "plenty"),
  "paper-opt-13b": () => paper("opt-13b", "plenty"),
  "paper-opt-30b": () => paper("opt-30b", "plenty"),
  "scarce-opt-6.7b": () => paper("opt-6.7b", "scarce"),
  azure: async () => {
    const reports = await runAzure(process.env.SLLM_TEST_TRACES ?? "");
    if (reports === null) return null;
    const pictures = reports.map((report, i) => picture(`azure-${i + 1}`, report));
    writeRaw("azure", reports);
    const tables = reports.map((report, i) => `${caseTable(report)}\n![start-up times](${pictures[i]})\n`);
    return [
      "# Azure's traces",
      "",
      "OPT-6.7B as 32 models, four slots each, on the cluster of scarce-opt-6.7b.",
      "",
      ...tables,
    ].join("\n");
  },
  reality: async () => realityText(await runReality([1, 2, 3], 3, say)),
  optimum: async () => optimumText(await runOptimum()),
  speed: async () => speedText(await runSpeed(1_000_000, 10_000)),
};

async function paper(size: SizeName, shelves: keyof typeof paperShelves): Promise<string> {
  const reports = await runPaper(
    size,
    paperShelves[shelves],
    size === "opt-6.7b" ? rates_per_s : fewRates_per_s,
  );
  const name = `${shelves === "plenty" ? "paper" : "scarce"}-${size}`;
  writeRaw(name, reports);
  const pictures = reports.slice(-1).map((report) => picture(name, report));
  return paperText(size, shelves, reports, pictures);
}

function picture(name: string, { title, results }: CaseReport): string {
  const lines = results.map(({ name, values_ms }) => ({ name, values_ms }));
  writeFileSync(path.join(folder, `${name}.svg`), cdfPicture(title, lines));
  return `${name}.svg`;
}

function writeRaw(name: string, reports: readonly CaseReport[]): void {
  writeFileSync(path.join(rawFolder, `${name}.csv`), rawRows(reports.flatMap(({ results }) => results)));
}

/** The commit and the names of what was run: enough to run it again. */
function origin(name: string): string {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], {
    cwd: root,
    encoding: "utf8",
  }).trim();
  return `Written by \`npm run experiments -- ${name}\` at commit ${commit}.\n`;
}

/** Progress: not part of what is written. */
function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

const asked = process.argv.slice(2);
const unknown = asked.find((name) => experiments[name] === undefined);
if (unknown !== undefined) {
  process.stderr.write(
    `there is no experiment '${unknown}'; there are ${Object.keys(experiments).join(", ")}\n`,
  );
  process.exit(2);
}
mkdirSync(rawFolder, { recursive: true });
for (const name of asked.length > 0 ? asked : Object.keys(experiments)) {
  const began_ms = performance.now();
  const text = await experiments[name]?.();
  if (text === null || text === undefined) {
    process.stdout.write(
      `${name}: skipped, SLLM_TEST_TRACES names no folder with the traces (docs/simulate.md)\n`,
    );
    continue;
  }
  writeFileSync(path.join(folder, `${name}.md`), `${text.trimEnd()}\n\n${origin(name)}`);
  process.stdout.write(`${name}: ${((performance.now() - began_ms) / 1_000).toFixed(0)} s\n`);
}
