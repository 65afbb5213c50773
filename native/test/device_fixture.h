// Devices for the tests: ggml-vulkan on a Vulkan driver, Debian's llvmpipe where there is no GPU. llvmpipe twice in
// GGML_VK_VISIBLE_DEVICES makes two devices of one. CUDA goes through the same code.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/llama/llama_backend.h"
#include "test/checkpoint_fixture.h"

namespace test {

// The engine library's name of a device of the kind that is tested.
std::string device_name(int index);
std::vector<sllm::DeviceShare> one_device();
std::vector<sllm::DeviceShare> two_devices();

// The first of them.
ggml_backend_dev_t device();

// Loads the engine libraries; skips the case where the driver gives fewer devices than it needs.
void need_devices(const std::vector<sllm::DeviceShare> &devices);

// Memory in use on the first device. llvmpipe's is this process's own; it reports none of it.
std::int64_t device_used_mib();

// An engine with its weights; no devices: on the CPU.
std::unique_ptr<sllm::llama::LlamaBackend> open_on(const Checkpoint &checkpoint, const std::string &weights_path,
                                                   const std::vector<sllm::DeviceShare> &devices);

std::unique_ptr<sllm::llama::ModelSkeleton> build_skeleton(const Checkpoint &checkpoint,
                                                           const std::vector<sllm::DeviceShare> &devices);
// Brings the weights of a host copy in.
void attach(sllm::llama::ModelSkeleton &skeleton, const Checkpoint &checkpoint, const std::string &path);

// Reads every tensor back from where it lies and compares it with the file. Returns the bytes on devices.
std::uint64_t check_bytes(const sllm::llama::ModelSkeleton &skeleton, const Checkpoint &checkpoint);

}  // namespace test
