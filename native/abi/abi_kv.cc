// Rows of the KV cache that move from engine to engine.
#include "abi/engine_handle.h"
#include "abi/guard.h"

using namespace sllm::abi;
using sllm::Code;
using sllm::Status;

extern "C" {

sllm_status sllm_engine_save_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from, uint32_t to) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return {Code::invalid_argument, "the engine is NULL"};
        if (path == nullptr) return {Code::invalid_argument, "path is NULL"};
        return engine->impl.move_kv({request, false, path, from, to, 0, 0});
    });
}

sllm_status sllm_engine_load_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from, uint32_t to,
                                uint32_t all, uint64_t digest) {
    return guarded([&]() -> Status {
        if (engine == nullptr) return {Code::invalid_argument, "the engine is NULL"};
        if (path == nullptr) return {Code::invalid_argument, "path is NULL"};
        return engine->impl.move_kv({request, true, path, from, to, all, digest});
    });
}

}  // extern "C"
