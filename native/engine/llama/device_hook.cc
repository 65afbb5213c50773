// The hooks in the buffer types of devices and of other layouts.
//
// Two of libllama's ways to a device are closed while it builds a model. It would upload through staging buffers of
// its own where a buffer's type is the device's default: buffers therefore carry a copy of the type, equal but for
// its address. Otherwise it would set tensor by tensor: that function does nothing. init_tensor stays as it is, because
// CUDA clears the padding of rows there.
#include "engine/llama/device_hook.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace sllm::llama {

namespace {

struct HookedType {
    ggml_backend_buffer_type_t type;
    ggml_backend_buffer_type_i original;
    // Lives as long as the process: where a model's weights need several buffers, the library wraps them in one that
    // keeps the type it saw.
    ggml_backend_buffer_type twin;
};

struct HeldBuffer {
    ggml_backend_buffer_t buffer;
    ggml_backend_buffer_type_t type;
    decltype(ggml_backend_buffer_i::set_tensor) set_tensor;
    decltype(ggml_backend_buffer_i::set_tensor_2d) set_tensor_2d;
};

struct Active {
    std::size_t alignment;
    std::function<void()> on_allocate;
    std::vector<HeldBuffer> held;
    std::size_t refused_bytes = 0;
};

std::mutex types_mutex;
// Never shrinks, so that a call on another thread finds the original functions at any time.
std::deque<HookedType> types;

// Of the thread that builds; null on all others.
thread_local Active *active = nullptr;

HookedType &hooked_type(ggml_backend_buffer_type_t type) {
    const std::lock_guard lock(types_mutex);
    const auto known = std::find_if(types.begin(), types.end(),
                                    [&](const HookedType &t) { return t.type == type || &t.twin == type; });
    if (known != types.end()) return *known;
    return types.emplace_back(HookedType{type, type->iface, *type});
}

void ignore_set(ggml_backend_buffer_t, ggml_tensor *, const void *, std::size_t, std::size_t) {}
void ignore_set_2d(ggml_backend_buffer_t, ggml_tensor *, const void *, std::size_t, std::size_t, std::size_t,
                   std::size_t, std::size_t) {}

ggml_backend_buffer_t hooked_alloc(ggml_backend_buffer_type_t type, std::size_t bytes) {
    HookedType &hooked = hooked_type(type);
    if (active == nullptr) return hooked.original.alloc_buffer(type, bytes);
    active->on_allocate();
    ggml_backend_buffer_t buffer = hooked.original.alloc_buffer(type, bytes);
    if (buffer == nullptr) {
        active->refused_bytes = bytes;
        return nullptr;
    }
    active->held.push_back({buffer, buffer->buft, buffer->iface.set_tensor, buffer->iface.set_tensor_2d});
    buffer->buft = &hooked.twin;
    buffer->iface.set_tensor = ignore_set;
    if (buffer->iface.set_tensor_2d != nullptr) buffer->iface.set_tensor_2d = ignore_set_2d;
    return buffer;
}

std::size_t hooked_alignment(ggml_backend_buffer_type_t type) {
    const std::size_t own = hooked_type(type).original.get_alignment(type);
    return active == nullptr ? own : std::max(own, active->alignment);
}

}  // namespace

DeviceHook::DeviceHook(std::span<const ggml_backend_buffer_type_t> wanted, std::size_t alignment,
                       std::function<void()> on_allocate) {
    active = new Active{alignment, std::move(on_allocate), {}, 0};
    for (ggml_backend_buffer_type_t type : wanted) {
        HookedType &hooked = hooked_type(type);
        // The copy is asked for it when tensors are laid out in a buffer that carries it.
        hooked.twin.iface.get_alignment = hooked_alignment;
        type->iface.alloc_buffer = hooked_alloc;
        type->iface.get_alignment = hooked_alignment;
    }
}

DeviceHook::~DeviceHook() {
    const std::lock_guard lock(types_mutex);
    for (HookedType &hooked : types) hooked.type->iface = hooked.original;
    delete std::exchange(active, nullptr);
}

void DeviceHook::finish() {
    for (const HeldBuffer &held : active->held) {
        held.buffer->buft = held.type;
        held.buffer->iface.set_tensor = held.set_tensor;
        held.buffer->iface.set_tensor_2d = held.set_tensor_2d;
    }
    active->held.clear();
}

std::size_t DeviceHook::refused_bytes() const { return active->refused_bytes; }

}  // namespace sllm::llama
