// While one lives, tensors of a LoRA adapter that the engine library puts into the CPU's memory on this thread lie in a
// mapped host copy, and what it sets them to is left out: they hold it already. The library allocates all tensors of a
// buffer type at once and names them before that (llama-adapter.cpp), so that each can be told where it lies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/gguf_header.h"
#include "engine/llama/buffer_hook.h"

namespace sllm::llama {

class TensorPlacing {
public:
    // header: borrowed. weights: the mapped data of the same file, which the adapter needs as long as it lives.
    TensorPlacing(const GgufHeader &header, std::span<std::uint8_t> weights);
    // The buffers made meanwhile are ordinary ones from then on.
    ~TensorPlacing();
    TensorPlacing(const TensorPlacing &) = delete;
    TensorPlacing &operator=(const TensorPlacing &) = delete;

private:
    static ggml_status place(ggml_backend_buffer_t buffer, ggml_tensor *tensor);
    static void leave(ggml_backend_buffer_t, ggml_tensor *, const void *, std::size_t, std::size_t) {}
    ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, std::size_t bytes);

    struct Placed {
        ggml_backend_buffer_t buffer;
        ggml_backend_buffer_i ordinary;
    };

    const GgufHeader &header_;
    const std::span<std::uint8_t> weights_;
    std::vector<Placed> buffers_;
    const BufferHook hook_;
};

}  // namespace sllm::llama
