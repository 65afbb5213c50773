/** Which discrete devices this worker computes on: by configuration, or an NVIDIA one when there is one. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import type { DeviceChoice } from "../../schema/vocab.ts";
import type { DeviceFacts } from "../instances/devices.ts";

/** A kind of device that an engine package serves. */
export type DiscreteKind = Exclude<DeviceChoice, "auto" | "cpu">;

/** Part of a device's memory that models may use: drivers, and compute buffers beyond the estimate, need the rest. */
const deviceShare = 0.9;
/** Opening all devices of a host takes seconds. */
const listMs = 60_000;
/** Appears with NVIDIA's kernel driver. */
const nvidiaControl = "/dev/nvidiactl";

const repositoryRoot = path.join(import.meta.dirname, "../..");

/** What is asked of the host; tests answer otherwise. */
export interface DeviceProbe {
  readonly exists: (file: string) => boolean;
  /** Devices that the libraries in a folder find, as JSON. */
  readonly list: (engine_libraries: string) => Promise<string>;
}

export interface DeviceSetup {
  /** null: the processors. */
  readonly kind: DiscreteKind | null;
  readonly engine_libraries: string;
  /** Empty for the processors. */
  readonly devices: readonly DeviceFacts[];
  /** Why a device that is here is not used; null otherwise. */
  readonly unused: string | null;
}

export interface DeviceWishes {
  readonly choice: DeviceChoice;
  /** Memory of each device for models; a share of what it has when absent. */
  readonly device_memory_bytes: number | undefined;
  /** Engine libraries that the user has set; absent: those of the package for the kind. */
  readonly engine_libraries: string | undefined;
  /** Engine libraries for the processors. */
  readonly cpu_libraries: string;
}

const listed = z.object({
  devices: z.array(z.object({ name: z.string(), backend: z.string(), memory_bytes: z.number() })),
});

/**
 * Chooses and lists. `auto` takes the processors, with a reason, where an NVIDIA device cannot be used; a kind that was
 * asked for by name and cannot be used throws with what to do.
 */
export async function findDevices(wishes: DeviceWishes, probe: DeviceProbe): Promise<DeviceSetup> {
  const { choice } = wishes;
  const processors = (unused: string | null): DeviceSetup => {
    const engine_libraries = wishes.engine_libraries ?? wishes.cpu_libraries;
    return { kind: null, engine_libraries, devices: [], unused };
  };
  if (choice === "cpu" || (choice === "auto" && !probe.exists(nvidiaControl))) return processors(null);
  const kind = choice === "auto" ? "cuda" : choice;
  try {
    return await openKind(kind, wishes, probe);
  } catch (error) {
    if (choice !== "auto") throw error;
    return processors(error instanceof Error ? error.message : String(error));
  }
}

async function openKind(kind: DiscreteKind, wishes: DeviceWishes, probe: DeviceProbe): Promise<DeviceSetup> {
  const engine_libraries = wishes.engine_libraries ?? packageFolder(kind, probe);
  const { devices } = listed.parse(JSON.parse(await probe.list(engine_libraries)));
  const found = devices.filter((device) => device.backend.toLowerCase() === kind);
  if (found.length === 0) {
    throw new Error(
      `worker.device is ${kind}, and the engine libraries find no such device: is its driver installed?`,
    );
  }
  return {
    kind,
    engine_libraries,
    devices: found.map(({ name, memory_bytes }, index) => ({
      device_id: `${kind}${index}`,
      kind,
      memory_bytes: wishes.device_memory_bytes ?? Math.floor(memory_bytes * deviceShare),
      engine_name: name,
    })),
    unused: null,
  };
}

/** Where a kind's libraries lie: fetched by our script, or installed beside the other packages. */
function packageFolder(kind: DiscreteKind, probe: DeviceProbe): string {
  const name = `linux-x64-${kind}`;
  const folders = [
    path.join(repositoryRoot, "native/vendor/engines", name),
    path.join(repositoryRoot, "node_modules/@node-llama-cpp", name, "bins", name),
  ];
  const folder = folders.find((one) => probe.exists(path.join(one, `libllama.${kind}.v0.5.0.so`)));
  if (folder) return folder;
  throw new Error(
    `the engine libraries for ${kind} are not installed: node deploy/scripts/engines.mjs ${kind} fetches them`,
  );
}

/** A probe of this host that lists devices in a process of its own. */
export function hostProbe(command: readonly string[], library: string): DeviceProbe {
  const [program = "", ...args] = command;
  return {
    exists: existsSync,
    list: async (engine_libraries) => {
      try {
        const options = { timeout: listMs, env: { ...process.env, GGML_NO_BACKTRACE: "1" } };
        const end = await promisify(execFile)(program, [...args, library, engine_libraries], options);
        return end.stdout;
      } catch (error) {
        const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
        throw new Error(`the devices cannot be listed: ${said || error}`);
      }
    },
  };
}

/** Variables of the drivers that an engine process inherits. */
export const driverVariables = [
  "CUDA_VISIBLE_DEVICES",
  "GGML_VK_VISIBLE_DEVICES",
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "XDG_RUNTIME_DIR",
] as const;
