/** Whether this machine can test discrete devices: Vulkan libraries fetched, and llvmpipe or another driver installed. */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { repositoryRoot } from "./processes.ts";

const libraries = path.join(
  repositoryRoot,
  "native/vendor/engines/linux-x64-vulkan/libllama.vulkan.v0.5.0.so",
);
const drivers = "/usr/share/vulkan/icd.d";

/** Why the tests are skipped; null where they can run. */
export const vulkanMissing: string | null = !existsSync(libraries)
  ? "no libraries: node deploy/scripts/engines.mjs vulkan"
  : !existsSync(drivers) || readdirSync(drivers).length === 0
    ? "no Vulkan driver: apt-get install mesa-vulkan-drivers"
    : null;

/** Makes the first device visible twice, as vulkan0 and vulkan1, also where it is the processors' own (llvmpipe). */
export const vulkanVariables = { SLLM_WORKER_DEVICE: "vulkan", GGML_VK_VISIBLE_DEVICES: "0,0" } as const;
