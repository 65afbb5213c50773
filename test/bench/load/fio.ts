/** `fio` as a second opinion on the ceiling, where it is installed. */
import { spawnSync } from "node:child_process";
import { median } from "../statistics.ts";
import { type CeilingSetting, ceiling } from "./programs.ts";

export interface FioOpinion {
  readonly gbps: number;
  /** fio's speed over that of our own reader just before, on the same file; above 1 our ceiling is too low. */
  readonly to_ceiling: number;
  readonly pairs: number;
}

const pairs = 3;

/** Null, and a word why, where fio cannot be used. */
export function askFio(
  file: string,
  setting: CeilingSetting,
  say: (text: string) => void,
): FioOpinion | null {
  if (spawnSync("fio", ["--version"]).error) {
    say("fio: skipped, not installed");
    return null;
  }
  const readings: { own: number; fio: number }[] = [];
  for (let i = 0; i < pairs; i++) {
    const own = ceiling(file, setting).gbps;
    const result = spawnSync("fio", fioArguments(file), { encoding: "utf8" });
    if (result.status !== 0) {
      say(`fio: skipped, it failed: ${result.stderr.trim()}`);
      return null;
    }
    const report = JSON.parse(result.stdout) as { jobs: { read: { bw_bytes: number } }[] };
    readings.push({ own, fio: (report.jobs[0]?.read.bw_bytes ?? Number.NaN) / 1e9 });
  }
  return {
    gbps: median(readings.map(({ fio }) => fio)),
    to_ceiling: median(readings.map(({ own, fio }) => fio / own)),
    pairs,
  };
}

/** Blocks and depth of its own: fio touches its buffers while its clock runs, so they are kept small. */
function fioArguments(file: string): string[] {
  return [
    ...["--name=ceiling", `--filename=${file}`, "--readonly", "--rw=read", "--direct=1"],
    ...["--ioengine=io_uring", "--bs=4M", "--iodepth=8", "--output-format=json"],
  ];
}
