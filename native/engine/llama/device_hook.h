// While one lives, weights that the engine library allocates on devices, or in layouts of its own, on this thread get
// their memory but not their bytes: what the library writes into the buffers goes nowhere. The bytes come afterwards,
// from the host copy.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "ggml-backend-impl.h"

namespace sllm::llama {

class DeviceHook {
public:
    // Hooks these buffer types, whose alignment it sets to `alignment` meanwhile. on_allocate is called before each
    // allocation. Lives within the lifetime of a BufferHook, which keeps other builds away.
    DeviceHook(std::span<const ggml_backend_buffer_type_t> wanted, std::size_t alignment,
               std::function<void()> on_allocate);
    ~DeviceHook();
    DeviceHook(const DeviceHook &) = delete;
    DeviceHook &operator=(const DeviceHook &) = delete;

    // The model was built: makes its buffers ordinary ones. Not to be called when the build failed, which has freed
    // them.
    void finish();

    // Size of the buffer that a device had no memory for; 0 when there was none.
    std::size_t refused_bytes() const;
};

}  // namespace sllm::llama
