// While one lives, buffers that the engine library allocates for the CPU on this thread come from us. Other threads are
// served as ever. At most one lives in a process: constructing a second waits.
#pragma once

#include <functional>
#include <mutex>

#include "ggml-backend-impl.h"

namespace sllm::llama {

class BufferHook {
public:
    // allocate: returns a buffer of `bytes`, or null when there is no memory. alignment: what the buffer type claims
    // meanwhile; 0 leaves it.
    using Allocate = std::function<ggml_backend_buffer_t(ggml_backend_buffer_type_t type, std::size_t bytes)>;
    BufferHook(Allocate allocate, std::size_t alignment);
    ~BufferHook();
    BufferHook(const BufferHook &) = delete;
    BufferHook &operator=(const BufferHook &) = delete;

private:
    std::unique_lock<std::mutex> lock_;
};

// A buffer over memory of the caller's, with the CPU's buffer type. The memory must outlive it.
ggml_backend_buffer_t wrap_memory(ggml_backend_buffer_type_t type, void *memory, std::size_t bytes);

}  // namespace sllm::llama
