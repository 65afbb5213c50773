// The memory of a context (KV cache and compute buffers): fresh zero pages that cost memory only where they were
// written, and that can be let go while the context stays at its addresses.
#pragma once

#include <memory>
#include <vector>

#include "ggml-backend-impl.h"

namespace sllm::llama {

// Must outlive the buffers it made. Not thread-safe: no computation may run during a call.
class ContextMemory {
public:
    ContextMemory();
    ~ContextMemory();
    ContextMemory(const ContextMemory &) = delete;
    ContextMemory &operator=(const ContextMemory &) = delete;

    // A buffer with the CPU's buffer type, all zero. Clearing it to zero lets its pages go instead of writing them:
    // that keeps a context from touching the pages of its whole KV cache before the first token. Null without memory.
    ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, std::size_t bytes);

    // Lets the pages of all buffers go; they read as zeros again.
    void drop();

    // One buffer's pages. Defined beside the functions that the library calls with it.
    struct Pages;

private:
    std::vector<std::unique_ptr<Pages>> all_;
};

}  // namespace sllm::llama
