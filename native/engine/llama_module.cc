// Loads engine libraries and module with dlopen. Neither is ever unloaded: libllama keeps threads and globals.
#include "engine/llama_module.h"

#include <dlfcn.h>

#include <filesystem>
#include <mutex>

namespace sllm {

namespace {

namespace fs = std::filesystem;

// Packages for devices put their kind into two of the names. The first whose library is there is taken.
constexpr const char *kinds[] = {"", ".cuda", ".vulkan"};

// In the order of their dependencies.
std::vector<std::string> engine_libraries(const fs::path &folder) {
    std::string kind;
    for (const char *one : kinds) {
        std::error_code error;
        if (!fs::exists(folder / ("libllama" + std::string(one) + ".v0.5.0.so"), error)) continue;
        kind = one;
        break;
    }
    return {"libggml-base.so", "libggml" + kind + ".v0.5.0.so", "libllama" + kind + ".v0.5.0.so",
            "libllama-common.so"};
}

Status load_engine_libraries(const fs::path &folder) {
    for (const std::string &name : engine_libraries(folder)) {
        const fs::path path = folder / name;
        std::error_code error;
        if (!fs::exists(path, error)) {
            return {Code::library_missing, "the engine library " + path.string() + " does not exist"};
        }
        // Global, because the module leaves these symbols to whichever package was loaded.
        if (::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
            return {Code::library_missing, std::string("the engine library cannot be loaded: ") + ::dlerror()};
        }
    }
    return {};
}

Status load_module(const LlamaModule **out) {
    Dl_info self{};
    if (::dladdr(reinterpret_cast<const void *>(&load_llama_module), &self) == 0) {
        return {Code::internal, "this library does not know its own path"};
    }
    const fs::path path = fs::absolute(self.dli_fname).parent_path() / "libsllm_llama.so";
    void *handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const std::string why = ::dlerror();
        // What is not found by name here is a symbol that the engine libraries lack: another version of them.
        const bool symbol = why.find("undefined symbol") != std::string::npos;
        return {symbol ? Code::library_version : Code::library_missing, "the llama module cannot be loaded: " + why};
    }
    using Entry = const LlamaModule *(*)();
    const auto entry = reinterpret_cast<Entry>(::dlsym(handle, "sllm_llama_module"));
    if (entry == nullptr || std::string(entry()->build) != SLLM_BUILD) {
        return {Code::library_version, path.string() + " belongs to another build of this library"};
    }
    *out = entry();
    return {};
}

}  // namespace

Status load_llama_module(const std::string &library_dir, const LlamaModule **out) {
    static std::mutex mutex;
    static const LlamaModule *loaded = nullptr;
    static fs::path loaded_from;
    const std::lock_guard lock(mutex);
    std::error_code error;
    const fs::path folder = fs::canonical(library_dir, error);
    if (error) {
        return {Code::library_missing, "the engine library folder " + library_dir + ": " + error.message()};
    }
    if (loaded != nullptr && folder != loaded_from) {
        return {Code::invalid_argument, "engine libraries are already loaded from " + loaded_from.string()};
    }
    if (loaded == nullptr) {
        if (Status s = load_engine_libraries(folder); !s.ok()) return s;
        if (Status s = load_module(&loaded); !s.ok()) return s;
        loaded_from = folder;
    }
    *out = loaded;
    return {};
}

}  // namespace sllm
