// What every function of the border shares: no exception leaves, the text of a failure is kept for the calling thread,
// and structs of older callers are read with defaults.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "core/status.h"
#include "sllm/sllm.h"

namespace sllm::abi {

// Keeps the text for sllm_last_error of this thread and returns the code.
sllm_status report(const Status &status) noexcept;
sllm_status report(Code code, const char *message) noexcept;

// Runs body, which returns a Status, as one call of the border.
template <typename Body>
sllm_status guarded(Body &&body) noexcept {
    try {
        return report(body());
    } catch (const std::bad_alloc &) {
        return report(Code::out_of_memory, "out of memory");
    } catch (const std::exception &error) {
        return report(Code::internal, error.what());
    } catch (...) {
        return report(Code::internal, "an unknown exception");
    }
}

// Reads a parameter struct: as many bytes as the caller's version has, zero beyond.
template <typename Params>
Status read_params(const Params *params, Params *out) {
    if (params == nullptr) return {Code::invalid_argument, "the parameters are NULL"};
    if (params->struct_size < sizeof params->struct_size) return {Code::invalid_argument, "struct_size is not set"};
    std::memset(static_cast<void *>(out), 0, sizeof *out);
    std::memcpy(static_cast<void *>(out), params, std::min<std::size_t>(params->struct_size, sizeof *out));
    return {};
}

// Writes a result struct: as many bytes as the caller's version has.
template <typename Result>
Status write_result(Result result, Result *out) {
    if (out == nullptr) return {Code::invalid_argument, "the result is NULL"};
    const std::uint32_t size = out->struct_size;
    if (size < sizeof out->struct_size) return {Code::invalid_argument, "struct_size is not set"};
    result.struct_size = size;
    std::memcpy(static_cast<void *>(out), &result, std::min<std::size_t>(size, sizeof result));
    return {};
}

// Copies text into a caller's buffer, without a NUL; *needed is its length in any case.
Status write_text(const std::string &text, char *out, std::uint64_t cap, std::uint64_t *needed);

// A NUL-terminated parameter.
Status read_path(const char *path, const char *name, std::string *out);

}  // namespace sllm::abi
