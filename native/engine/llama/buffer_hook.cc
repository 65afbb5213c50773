// The hook in struct ggml_backend_buffer_type.
#include "engine/llama/buffer_hook.h"

#include <utility>

namespace sllm::llama {

namespace {

std::mutex hook_mutex;
decltype(ggml_backend_buffer_type_i::alloc_buffer) original_alloc = nullptr;
decltype(ggml_backend_buffer_type_i::get_alignment) original_alignment = nullptr;

struct Active {
    BufferHook::Allocate allocate;
    std::size_t alignment;
};

// Of the thread that holds hook_mutex; null on all others.
thread_local Active *active = nullptr;

ggml_backend_buffer_t hooked_alloc(ggml_backend_buffer_type_t type, std::size_t bytes) {
    return active == nullptr ? original_alloc(type, bytes) : active->allocate(type, bytes);
}

std::size_t hooked_alignment(ggml_backend_buffer_type_t type) {
    return active == nullptr || active->alignment == 0 ? original_alignment(type) : active->alignment;
}

}  // namespace

BufferHook::BufferHook(Allocate allocate, std::size_t alignment) : lock_(hook_mutex) {
    ggml_backend_buffer_type_i &iface = ggml_backend_cpu_buffer_type()->iface;
    original_alloc = iface.alloc_buffer;
    original_alignment = iface.get_alignment;
    active = new Active{std::move(allocate), alignment};
    iface.alloc_buffer = hooked_alloc;
    iface.get_alignment = hooked_alignment;
}

BufferHook::~BufferHook() {
    ggml_backend_buffer_type_i &iface = ggml_backend_cpu_buffer_type()->iface;
    iface.alloc_buffer = original_alloc;
    iface.get_alignment = original_alignment;
    delete std::exchange(active, nullptr);
}

ggml_backend_buffer_t wrap_memory(ggml_backend_buffer_type_t type, void *memory, std::size_t bytes) {
    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(memory, bytes);
    buffer->buft = type;
    return buffer;
}

}  // namespace sllm::llama
