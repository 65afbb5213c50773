// The callbacks of the buffers.
#include "engine/llama/tensor_placing.h"

#include <utility>

namespace sllm::llama {

namespace {

// Of the thread that reads an adapter; null on all others.
thread_local TensorPlacing *placing = nullptr;

}  // namespace

TensorPlacing::TensorPlacing(const GgufHeader &header, std::span<std::uint8_t> weights)
    : header_(header),
      weights_(weights),
      hook_([this](ggml_backend_buffer_type_t type, std::size_t bytes) { return allocate(type, bytes); }, 0) {
    placing = this;
}

TensorPlacing::~TensorPlacing() {
    placing = nullptr;
    for (const auto &[buffer, ordinary] : buffers_) buffer->iface = ordinary;
}

ggml_backend_buffer_t TensorPlacing::allocate(ggml_backend_buffer_type_t type, std::size_t bytes) {
    ggml_backend_buffer_t buffer = wrap_memory(type, weights_.data(), bytes);
    if (buffer == nullptr) return nullptr;
    buffers_.push_back({buffer, buffer->iface});
    buffer->iface.init_tensor = place;
    buffer->iface.set_tensor = leave;
    return buffer;
}

ggml_status TensorPlacing::place(ggml_backend_buffer_t, ggml_tensor *tensor) {
    const auto offset = placing->header_.tensor_offsets.find(ggml_get_name(tensor));
    if (offset == placing->header_.tensor_offsets.end()) return GGML_STATUS_FAILED;
    const std::uint64_t all = placing->weights_.size();
    if (offset->second > all || ggml_nbytes(tensor) > all - offset->second) return GGML_STATUS_FAILED;
    tensor->data = placing->weights_.data() + offset->second;
    return GGML_STATUS_SUCCESS;
}

}  // namespace sllm::llama
