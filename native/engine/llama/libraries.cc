// Version checks, structural checks and the choice of the CPU variant.
#include "engine/llama/libraries.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string_view>
#include <vector>

#include "core/digest.h"
#include "engine/llama/devices.h"
#include "engine/llama/log.h"
#include "llama.h"

namespace sllm::llama {

namespace {

namespace fs = std::filesystem;

constexpr const char *llama_wanted = "0.5.0-dev";  // what release v0.5.0 calls itself
constexpr const char *ggml_wanted = "0.25.1";
constexpr const char *ggml_commit_wanted = "0ad4a86";

Status differs(const std::string &what) {
    return {Code::library_version, "the engine library is not the one this build knows: " + what};
}

// Whether a function pointer leads into the object that holds `anchor`.
bool same_object(const void *function, const void *anchor) {
    Dl_info a{};
    Dl_info b{};
    return function != nullptr && ::dladdr(function, &a) != 0 && ::dladdr(anchor, &b) != 0 &&
           a.dli_fbase == b.dli_fbase;
}

template <typename Function>
const void *address_of(Function *function) {
    return reinterpret_cast<const void *>(function);
}

Status check_buffer(ggml_backend_buffer_type *type, const void *anchor) {
    alignas(64) static std::uint8_t memory[64];
    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(memory, sizeof memory);
    const bool fits = same_object(address_of(buffer->iface.get_base), anchor) &&
                      same_object(address_of(buffer->iface.clear), anchor) && buffer->iface.free_buffer == nullptr &&
                      buffer->context == memory && buffer->size == ggml_backend_buffer_get_size(buffer) &&
                      buffer->buft == ggml_backend_buffer_get_type(buffer) && buffer->buft != type &&
                      buffer->usage == ggml_backend_buffer_get_usage(buffer);
    ggml_backend_buffer_free(buffer);
    return fits ? Status() : differs("struct ggml_backend_buffer");
}

// The best-scoring variant of the CPU backend; empty when none runs on this processor.
fs::path best_cpu_variant(const fs::path &folder, std::string *refusals) {
    int best_score = 0;
    fs::path best;
    std::error_code error;
    for (const auto &entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("libggml-cpu") || entry.path().extension() != ".so") continue;
        void *handle = ::dlopen(entry.path().c_str(), RTLD_LAZY | RTLD_LOCAL);
        if (handle == nullptr) {
            *refusals += std::string("; ") + ::dlerror();
            continue;
        }
        using Score = int (*)();
        const auto score = reinterpret_cast<Score>(::dlsym(handle, "ggml_backend_score"));
        const int value = score == nullptr ? 0 : score();
        if (value > best_score) {
            best_score = value;
            best = entry.path();
        }
        ::dlclose(handle);
    }
    return best;
}

Status load_cpu_backend(const fs::path &folder) {
    std::string refusals;
    const fs::path variant = best_cpu_variant(folder, &refusals);
    if (variant.empty()) {
        return {Code::library_missing,
                "no libggml-cpu-*.so in " + folder.string() + " runs on this processor" + refusals};
    }
    LastWords words;
    if (ggml_backend_load(variant.c_str()) == nullptr) {
        return {Code::library_missing, variant.string() + " cannot be loaded: " + words.text()};
    }
    if (ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) == nullptr) {
        return {Code::library_missing, variant.string() + " brings no CPU device"};
    }
    return {};
}

Status prepare(const std::string &folder) {
    if (Status s = check_versions(loaded_versions()); !s.ok()) return s;
    install_log();
    if (Status s = load_cpu_backend(folder); !s.ok()) return s;
    if (Status s = load_device_backends(folder); !s.ok()) return s;
    llama_backend_init();
    ggml_backend_buffer_type_t type = ggml_backend_cpu_buffer_type();
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (ggml_backend_dev_buffer_type(device) != type) return differs("the CPU device has another buffer type");
    // The registry was accepted by the library with its own idea of the version; it must be ours as well.
    if (ggml_backend_dev_backend_reg(device)->api_version != GGML_BACKEND_API_VERSION) {
        return differs("the version of its backend interface");
    }
    return check_buffer_type(type);
}

}  // namespace

LibraryVersions loaded_versions() { return {llama_version(), ggml_version(), ggml_commit()}; }

std::string loaded_build() {
    const ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    Xxh3 digest;
    std::string variant;
    // The last one is what the variant is called by.
    for (const void *inside :
         {address_of(&llama_decode), address_of(&ggml_version), address_of(device->iface.get_name)}) {
        Dl_info info{};
        if (::dladdr(inside, &info) == 0) continue;
        variant = fs::path(info.dli_fname).stem().string();
        std::ifstream file(info.dli_fname, std::ios::binary);
        std::vector<char> piece(64 * 1024);
        while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())) || file.gcount() > 0) {
            digest.update(piece.data(), static_cast<std::size_t>(file.gcount()));
        }
    }
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(digest.value()));
    return variant + " " + hex;
}

Status check_versions(const LibraryVersions &versions) {
    const auto compare = [](const char *name, const std::string &found, const std::string &wanted) -> Status {
        return found == wanted ? Status() : differs(std::string(name) + " is " + found + ", wanted " + wanted);
    };
    if (Status s = compare("libllama", versions.llama, llama_wanted); !s.ok()) return s;
    if (Status s = compare("ggml", versions.ggml, ggml_wanted); !s.ok()) return s;
    return compare("ggml's commit", versions.ggml_commit, ggml_commit_wanted);
}

Status check_buffer_type(ggml_backend_buffer_type *type) {
    const void *anchor = address_of(&ggml_backend_cpu_buffer_type);
    const ggml_backend_buffer_type_i &iface = type->iface;
    for (const void *function : {address_of(iface.get_name), address_of(iface.alloc_buffer),
                                 address_of(iface.get_alignment), address_of(iface.is_host)}) {
        if (!same_object(function, anchor)) return differs("the functions of struct ggml_backend_buffer_type");
    }
    const bool fits = iface.get_name(type) == ggml_backend_buft_name(type) &&
                      std::string_view(ggml_backend_buft_name(type)) == "CPU" &&
                      iface.get_alignment(type) == ggml_backend_buft_get_alignment(type) &&
                      iface.is_host(type) == ggml_backend_buft_is_host(type) && ggml_backend_buft_is_host(type) &&
                      type->device == ggml_backend_buft_get_device(type) && iface.get_max_size == nullptr &&
                      ggml_backend_buft_get_max_size(type) == SIZE_MAX && iface.get_alloc_size == nullptr;
    if (!fits) return differs("struct ggml_backend_buffer_type");
    return check_buffer(type, anchor);
}

Status prepare_libraries(const std::string &folder) {
    static std::mutex mutex;
    static bool prepared = false;
    const std::lock_guard lock(mutex);
    if (prepared) return {};
    Status status = prepare(folder);
    prepared = status.ok();
    return status;
}

}  // namespace sllm::llama
