// Buffers of anonymous pages with functions of our own.
#include "engine/llama/context_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <string_view>
#include <utility>

#include "engine/llama/buffer_hook.h"
#include "engine/llama/tensor_tap.h"
#include "io/owned.h"

namespace sllm::llama {

struct ContextMemory::Pages {
    Mapping memory;
    std::vector<std::unique_ptr<Pages>> &owner;
    std::vector<KvTensor> &kv;
};

namespace {

ContextMemory::Pages &pages_of(ggml_backend_buffer_t buffer) {
    return *static_cast<ContextMemory::Pages *>(buffer->context);
}

void let_go(const Mapping &memory) {
    // What cannot be advised away is cleared by hand: the pages must read as zeros in any case.
    if (Env::posix().advise(memory.data(), memory.bytes(), MADV_DONTNEED) < 0) {
        std::memset(memory.data(), 0, memory.bytes());
    }
}

void *base_of(ggml_backend_buffer_t buffer) { return pages_of(buffer).memory.data(); }

void clear(ggml_backend_buffer_t buffer, std::uint8_t value) {
    const Mapping &memory = pages_of(buffer).memory;
    if (value == 0) {
        let_go(memory);
    } else {
        std::memset(memory.data(), value, memory.bytes());
    }
}

// The library names the tensors of its KV cache so; views of them have names of their own.
ggml_status note_tensor(ggml_backend_buffer_t buffer, ggml_tensor *tensor) {
    const std::string_view name(tensor->name);
    const bool is_key = name.starts_with("cache_k_l");
    if (tensor->view_src == nullptr && (is_key || name.starts_with("cache_v_l"))) {
        pages_of(buffer).kv.push_back({is_key, tensor->type, ggml_row_size(tensor->type, tensor->ne[0])});
    }
    return GGML_STATUS_SUCCESS;
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor *tensor, void *out, std::size_t offset, std::size_t bytes) {
    std::uint8_t *data = static_cast<std::uint8_t *>(tensor->data) + offset;
    if (!TensorTap::takes(data, bytes)) std::memcpy(out, data, bytes);
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor *tensor, const void *in, std::size_t offset, std::size_t bytes) {
    std::uint8_t *data = static_cast<std::uint8_t *>(tensor->data) + offset;
    if (!TensorTap::takes(data, bytes)) std::memcpy(data, in, bytes);
}

void free_pages(ggml_backend_buffer_t buffer) {
    const ContextMemory::Pages *pages = &pages_of(buffer);
    std::erase_if(pages->owner, [pages](const auto &one) { return one.get() == pages; });
}

}  // namespace

ContextMemory::ContextMemory() = default;
ContextMemory::~ContextMemory() = default;

ggml_backend_buffer_t ContextMemory::allocate(ggml_backend_buffer_type_t type, std::size_t bytes) {
    Env &env = Env::posix();
    void *memory = nullptr;
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (env.map(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0, &memory) < 0) return nullptr;
    all_.push_back(std::make_unique<Pages>(Pages{Mapping(env, memory, bytes), all_, kv_}));
    ggml_backend_buffer_t buffer = wrap_memory(type, memory, bytes);
    buffer->context = all_.back().get();
    buffer->iface.get_base = base_of;
    buffer->iface.clear = clear;
    buffer->iface.init_tensor = note_tensor;
    buffer->iface.get_tensor = get_tensor;
    buffer->iface.set_tensor = set_tensor;
    buffer->iface.free_buffer = free_pages;
    return buffer;
}

void ContextMemory::drop() {
    for (const auto &pages : all_) let_go(pages->memory);
}

}  // namespace sllm::llama
