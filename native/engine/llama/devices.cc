// Loading, finding and listing.
#include "engine/llama/devices.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/llama/libraries.h"
#include "engine/llama/log.h"
#include "ggml-backend-impl.h"

namespace sllm::llama {

namespace {

namespace fs = std::filesystem;

constexpr const char *backend_libraries[] = {"libggml-cuda.so", "libggml-vulkan.so"};

bool is_device(ggml_backend_dev_t device) {
    const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

std::vector<ggml_backend_dev_t> all_devices() {
    std::vector<ggml_backend_dev_t> all;
    for (std::size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (is_device(device)) all.push_back(device);
    }
    return all;
}

std::string names_of(const std::vector<ggml_backend_dev_t> &devices) {
    std::string names;
    for (ggml_backend_dev_t device : devices) {
        names += (names.empty() ? "" : ", ") + std::string(ggml_backend_dev_name(device));
    }
    return names.empty() ? "none" : names;
}

Status check_device(ggml_backend_dev_t device) {
    const std::string name = ggml_backend_dev_name(device);
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    if (!props.caps.async || !props.caps.events || !props.caps.host_buffer) {
        return {Code::model_unsupported, "the device " + name + " cannot copy in the background"};
    }
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device);
    if (type == nullptr || type->device != device || type->iface.get_name == nullptr ||
        type->iface.get_name(type) != ggml_backend_buft_name(type)) {
        return {Code::library_version, "the buffer type of the device " + name + " is not the one this build knows"};
    }
    return {};
}

}  // namespace

Status load_device_backends(const std::string &folder) {
    for (const char *name : backend_libraries) {
        const fs::path path = fs::path(folder) / name;
        std::error_code error;
        if (!fs::exists(path, error)) continue;
        const LastWords words;
        ggml_backend_reg_t registry = ggml_backend_load(path.c_str());
        if (registry != nullptr && registry->api_version != GGML_BACKEND_API_VERSION) {
            return {Code::library_version, path.string() + " has another backend interface than this build knows"};
        }
    }
    return {};
}

Status find_devices(std::span<const DeviceShare> wanted, std::vector<ggml_backend_dev_t> *out) {
    for (const DeviceShare &one : wanted) {
        ggml_backend_dev_t device = ggml_backend_dev_by_name(one.name.c_str());
        if (device == nullptr || !is_device(device)) {
            return {Code::not_found,
                    "there is no device " + one.name + "; the engine libraries find: " + names_of(all_devices())};
        }
        if (Status s = check_device(device); !s.ok()) return s;
        out->push_back(device);
    }
    return {};
}

Status list_devices(const std::string &library_dir, std::string *json) {
    if (Status s = prepare_libraries(library_dir); !s.ok()) return s;
    auto devices = nlohmann::json::array();
    for (ggml_backend_dev_t device : all_devices()) {
        std::size_t free = 0;
        std::size_t total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        devices.push_back({{"name", ggml_backend_dev_name(device)},
                           {"description", ggml_backend_dev_description(device)},
                           {"backend", ggml_backend_reg_name(ggml_backend_dev_backend_reg(device))},
                           {"memory_bytes", total},
                           {"free_bytes", free}});
    }
    *json = nlohmann::json{{"devices", devices}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return {};
}

}  // namespace sllm::llama
