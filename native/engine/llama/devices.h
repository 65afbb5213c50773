// The devices that the engine libraries in this process can compute on, beside the CPU.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "engine/device_split.h"
#include "ggml-backend.h"

namespace sllm::llama {

// Loads the folder's backend for devices where it has one. LIBRARY_VERSION when its interface is another one's;
// a backend that cannot be loaded, for want of a driver, is no error: there are no devices then.
Status load_device_backends(const std::string &folder);

// The devices of these names, in this order. NOT_FOUND names those that there are; MODEL_UNSUPPORTED tells what a
// device lacks that loading needs.
Status find_devices(std::span<const DeviceShare> wanted, std::vector<ggml_backend_dev_t> *out);

// See sllm_devices.
Status list_devices(const std::string &library_dir, std::string *json);

}  // namespace sllm::llama
