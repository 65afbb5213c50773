// The border: adapters.
#include "abi/engine_handle.h"
#include "abi/guard.h"
#include "core/limits.h"

using sllm::Code;
using sllm::Status;
using namespace sllm::abi;

extern "C" {

sllm_status sllm_engine_add_adapter(sllm_engine *engine, const sllm_adapter_params *params) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return {Code::invalid_argument, "the engine is NULL"};
        sllm_adapter_params p;
        if (Status s = read_params(params, &p); !s.ok()) return s;
        sllm::AdapterFiles files;
        files.adapter = p.adapter;
        files.weights_bytes = p.weights_bytes;
        files.scale = p.scale;
        if (Status s = read_path(p.header_path, "header_path", &files.header_path); !s.ok()) return s;
        if (Status s = read_path(p.weights_path, "weights_path", &files.weights_path); !s.ok()) return s;
        const std::uint64_t align = sllm::limits::file_align_bytes;
        if (p.weights_bytes == 0 || p.weights_bytes % align != 0 || p.weights_bytes > sllm::limits::weights_bytes) {
            return {Code::invalid_argument, "weights_bytes must be a multiple of 4096 between 4096 and 4 TiB"};
        }
        return engine->impl.add_adapter(files);
    });
}

sllm_status sllm_engine_remove_adapter(sllm_engine *engine, uint32_t adapter) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return {Code::invalid_argument, "the engine is NULL"};
        return engine->impl.remove_adapter(adapter);
    });
}

}  // extern "C"
