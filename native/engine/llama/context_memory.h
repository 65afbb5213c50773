// The memory of a context (KV cache and compute buffers): fresh zero pages that cost memory only where they were
// written, and that can be let go while the context stays at its addresses.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "ggml-backend-impl.h"

namespace sllm::llama {

// One layer's keys or values in the KV cache: a row of so many bytes for every cell.
struct KvTensor {
    bool is_key = false;
    ggml_type type = GGML_TYPE_F16;
    std::size_t row_bytes = 0;
};

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

    // Of the KV cache, in the order of its layers; empty without one of the usual form.
    const std::vector<KvTensor> &kv() const { return kv_; }

    // One buffer's pages. Defined beside the functions that the library calls with it.
    struct Pages;

private:
    std::vector<std::unique_ptr<Pages>> all_;
    std::vector<KvTensor> kv_;
};

}  // namespace sllm::llama
