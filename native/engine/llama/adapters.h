// LoRA adapters of one model: brought in from host copies by any thread, put to use by the compute thread, one at a
// time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "core/status.h"
#include "engine/backend.h"
#include "io/owned.h"
#include "llama.h"

namespace sllm::llama {

class Adapters {
public:
    // Reads an adapter from its header and the host copy of its weights, waiting for what has not come yet. in_place:
    // it is computed with in the host copy, which then has to stay as long as the adapter; else it is copied. [blocks]
    Status add(llama_model *model, const AdapterFiles &files, bool in_place);

    // The rest: compute thread only, or any while nothing is computed.

    // What the next decode computes with; 0: the bare model. The adapter was added.
    Status use(llama_context *context, std::uint32_t adapter);
    void remove(llama_context *context, std::uint32_t adapter);
    void clear(llama_context *context);
    // To be held during the decode that follows a change: the library then plans its memory anew and looks at all
    // adapters of the model meanwhile, which must not become more. Empty when there was no change.
    std::unique_lock<std::mutex> hold_after_change();

private:
    struct Free {
        void operator()(llama_adapter_lora *adapter) const { llama_adapter_lora_free(adapter); }
    };
    struct Adapter {
        Mapping memory;  // of one in place
        std::unique_ptr<llama_adapter_lora, Free> weights;
        float scale = 1;
    };

    std::mutex mutex_;  // also guards the library's own list of the model's adapters
    std::map<std::uint32_t, Adapter> adapters_;
    std::uint32_t used_ = 0;
    bool changed_ = false;
};

}  // namespace sllm::llama
