// The border: version, names, last error, digest.
#include <cstring>

#include "abi/guard.h"
#include "core/digest.h"
#include "io/memory_limit.h"

namespace sllm::abi {

namespace {

// Per thread, so that two threads never read each other's failures.
thread_local std::string last_error;

}  // namespace

sllm_status report(const Status &status) noexcept { return report(status.code(), status.message().c_str()); }

sllm_status report(Code code, const char *message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();  // no memory for the text; the code still tells
    }
    return static_cast<sllm_status>(code);
}

Status write_text(const std::string &text, char *out, std::uint64_t cap, std::uint64_t *needed) {
    if (needed == nullptr || (out == nullptr && cap > 0)) return {Code::invalid_argument, "an out pointer is NULL"};
    *needed = text.size();
    if (text.size() > cap) {
        return {Code::buffer_too_small, "the text has " + std::to_string(text.size()) + " bytes"};
    }
    if (!text.empty()) std::memcpy(out, text.data(), text.size());
    return {};
}

Status read_path(const char *path, const char *name, std::string *out) {
    if (path == nullptr || *path == '\0') return {Code::invalid_argument, std::string(name) + " is not given"};
    *out = path;
    return {};
}

}  // namespace sllm::abi

extern "C" {

uint32_t sllm_abi_version(void) { return SLLM_ABI_VERSION; }

const char *sllm_status_name(sllm_status status) {
    switch (status) {
        case SLLM_OK: return "SLLM_OK";
        case SLLM_E_INVALID_ARGUMENT: return "SLLM_E_INVALID_ARGUMENT";
        case SLLM_E_NOT_FOUND: return "SLLM_E_NOT_FOUND";
        case SLLM_E_BUFFER_TOO_SMALL: return "SLLM_E_BUFFER_TOO_SMALL";
        case SLLM_E_OVERLOADED: return "SLLM_E_OVERLOADED";
        case SLLM_E_CLOSED: return "SLLM_E_CLOSED";
        case SLLM_E_OUT_OF_MEMORY: return "SLLM_E_OUT_OF_MEMORY";
        case SLLM_E_WRONG_STATE: return "SLLM_E_WRONG_STATE";
        case SLLM_E_IO: return "SLLM_E_IO";
        case SLLM_E_CORRUPT: return "SLLM_E_CORRUPT";
        case SLLM_E_LIBRARY_MISSING: return "SLLM_E_LIBRARY_MISSING";
        case SLLM_E_LIBRARY_VERSION: return "SLLM_E_LIBRARY_VERSION";
        case SLLM_E_MODEL_UNSUPPORTED: return "SLLM_E_MODEL_UNSUPPORTED";
        case SLLM_E_CONTEXT_OVERFLOW: return "SLLM_E_CONTEXT_OVERFLOW";
        case SLLM_E_CANCELLED: return "SLLM_E_CANCELLED";
        case SLLM_E_ENGINE: return "SLLM_E_ENGINE";
        case SLLM_E_INTERNAL: return "SLLM_E_INTERNAL";
        default: return "SLLM_E_UNKNOWN";
    }
}

uint64_t sllm_last_error(char *out, uint64_t cap) {
    const std::string &text = sllm::abi::last_error;
    if (out != nullptr && cap > 0) {
        const std::size_t n = std::min<std::size_t>(text.size(), cap - 1);
        std::memcpy(out, text.data(), n);
        out[n] = '\0';
    }
    return text.size();
}

uint64_t sllm_digest_xxh3(const void *data, uint64_t n) { return sllm::xxh3(data, n); }

sllm_status sllm_limit_memory(uint64_t bytes) {
    return sllm::abi::guarded([&] { return sllm::limit_memory(sllm::Env::posix(), bytes); });
}

}  // extern "C"
