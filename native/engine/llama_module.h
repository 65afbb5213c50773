// The llama module: a shared library beside this one (libsllm_llama.so) that holds everything compiled against
// libllama. It is loaded when the first model is wanted, after the engine libraries themselves: so the store runs
// without them, a missing or foreign one is an error with a text instead of a process that cannot start, and the folder
// is chosen at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "engine/backend.h"
#include "engine/device_split.h"

namespace sllm {

struct LlamaOptions {
    std::string library_dir;
    std::string header_path;
    std::uint64_t weights_bytes = 0;
    std::uint32_t context_tokens = 0;
    std::uint32_t slots = 0;
    std::uint32_t batch_tokens = 0;
    std::uint32_t kv_tokens = 0;  // cells of the KV cache; 0: slots times context_tokens
    bool deterministic = false;
    bool repacked = false;  // weights on the CPU in the library's fastest layout, in private memory
    std::uint32_t threads = 0;  // 0: all processors but one
    std::vector<DeviceShare> devices;  // none: the CPU
};

// What the module's only symbol, sllm_llama_module, returns. Module and library are built together, so C++ types may
// cross; `build` is compared to refuse a module of another build.
struct LlamaModule {
    const char *build;
    // See sllm_engine_warm. [any] [blocks]
    Status (*warm)(const std::string &library_dir);
    // Checks the engine libraries and builds a model without its weights. [any] [blocks]
    Status (*build_backend)(const LlamaOptions &options, std::unique_ptr<Backend> *out);
    // See sllm_devices. [blocks]
    Status (*list_devices)(const std::string &library_dir, std::string *json);
    // See sllm_layout_plan. [blocks]
    Status (*plan_layout)(const std::string &library_dir, const std::string &header_path, std::string *json);
};

// Loads the engine libraries of the folder and the module, once per process. LIBRARY_MISSING tells what cannot be
// loaded and why, LIBRARY_VERSION that what is there does not fit. [any]
Status load_llama_module(const std::string &library_dir, const LlamaModule **out);

}  // namespace sllm
