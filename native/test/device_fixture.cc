// Devices by name, engines on them, bytes read back.
#include "test/device_fixture.h"

#include <cstring>
#include <set>

#include "engine/llama/devices.h"
#include "engine/llama/libraries.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/temp_folder.h"

// Exported by libllama, declared in its src/llama-model.h, which includes too much of the rest.
const std::vector<std::pair<std::string, ggml_tensor *>> &llama_internal_get_tensor_map(const llama_model *model);

// What the engine library and the driver keep until the process ends is not ours to give back; our own frames are in
// none of these libraries, so that a leak of ours is still reported.
extern "C" __attribute__((visibility("default"))) const char *__lsan_default_suppressions();
extern "C" const char *__lsan_default_suppressions() {
    return "leak:libggml-vulkan.so\nleak:libvulkan.so\nleak:libvulkan_lvp.so\nleak:libLLVM\n";
}

namespace test {

using sllm::DeviceShare;
using sllm::LlamaOptions;
using sllm::llama::LlamaBackend;
using sllm::llama::ModelSkeleton;

std::string device_name(int index) {
    return (std::string(SLLM_TEST_DEVICE_KIND) == "cuda" ? "CUDA" : "Vulkan") + std::to_string(index);
}

std::vector<DeviceShare> one_device() { return {{device_name(0), 1}}; }
std::vector<DeviceShare> two_devices() { return {{device_name(0), 1}, {device_name(1), 1}}; }

ggml_backend_dev_t device() { return ggml_backend_dev_by_name(device_name(0).c_str()); }

void need_devices(const std::vector<DeviceShare> &devices) {
    CHECK_OK(sllm::llama::prepare_libraries(engine_libraries()));
    for (const DeviceShare &device : devices) {
        if (ggml_backend_dev_by_name(device.name.c_str()) == nullptr) {
            SKIP("no device " + device.name + ": install mesa-vulkan-drivers, set GGML_VK_VISIBLE_DEVICES=0,0");
        }
    }
}

std::int64_t device_used_mib() {
    std::size_t free = 0;
    std::size_t total = 0;
    ggml_backend_dev_memory(device(), &free, &total);
    const bool on_cpu = std::string(ggml_backend_dev_description(device())).find("llvmpipe") != std::string::npos;
    return static_cast<std::int64_t>(on_cpu ? anonymous_kb() / 1024 : (total - free) >> 20);
}

std::unique_ptr<LlamaBackend> open_on(const Checkpoint &checkpoint, const std::string &weights_path,
                                      const std::vector<DeviceShare> &devices) {
    LlamaOptions options = engine_options(checkpoint);
    options.devices = devices;
    std::unique_ptr<sllm::Backend> backend;
    CHECK_OK(LlamaBackend::build(options, &backend));
    CHECK_OK(backend->attach(weights_path));
    return std::unique_ptr<LlamaBackend>(static_cast<LlamaBackend *>(backend.release()));
}

std::uint64_t check_bytes(const ModelSkeleton &skeleton, const Checkpoint &checkpoint) {
    const auto header = read_file(checkpoint.header_path);
    sllm::GgufHeader parsed;
    CHECK_OK(sllm::parse_gguf_header(header, &parsed));
    const auto weights = read_file(checkpoint.weights_path);
    std::set<const ggml_tensor *> seen;
    std::uint64_t on_devices = 0;
    for (const auto &[name, tensor] : llama_internal_get_tensor_map(skeleton.model())) {
        if (!seen.insert(tensor).second) continue;
        std::vector<std::uint8_t> bytes(ggml_nbytes(tensor));
        ggml_backend_tensor_get(tensor, bytes.data(), 0, bytes.size());
        if (std::memcmp(bytes.data(), weights.data() + parsed.tensor_offsets.at(name), bytes.size()) != 0) {
            throw Failed("the bytes of " + name + " are not the file's");
        }
        if (!ggml_backend_buffer_is_host(tensor->buffer)) on_devices += bytes.size();
    }
    return on_devices;
}

std::unique_ptr<ModelSkeleton> build_skeleton(const Checkpoint &checkpoint,
                                              const std::vector<DeviceShare> &devices) {
    std::unique_ptr<ModelSkeleton> skeleton;
    CHECK_OK(ModelSkeleton::build({checkpoint.header_path, checkpoint.weights_bytes, devices}, &skeleton));
    return skeleton;
}

void attach(ModelSkeleton &skeleton, const Checkpoint &checkpoint, const std::string &path) {
    sllm::HostCopyView weights;
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, checkpoint.weights_bytes, &weights));
    CHECK_OK(skeleton.attach(std::move(weights)));
}

}  // namespace test
