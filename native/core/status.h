// Status: the outcome of every fallible function of the library. Codes are those of the public header, a rule that
// abi/layout.cc checks, so that a status crosses the border unchanged.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace sllm {

enum class Code : std::int32_t {
    ok = 0,
    invalid_argument = -1,
    not_found = -2,
    buffer_too_small = -3,
    overloaded = -4,
    closed = -5,
    out_of_memory = -6,
    wrong_state = -7,
    io = -10,
    corrupt = -11,
    library_missing = -20,
    library_version = -21,
    model_unsupported = -22,
    context_overflow = -30,
    cancelled = -31,
    engine = -32,
    internal = -99,
};

class [[nodiscard]] Status {
public:
    Status() = default;
    Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

    bool ok() const { return code_ == Code::ok; }
    Code code() const { return code_; }
    const std::string &message() const { return message_; }

private:
    Code code_ = Code::ok;
    std::string message_;
};

// Text of an errno value, safe to call from any thread.
std::string errno_text(int error);

// Status of a failed system call: OUT_OF_MEMORY for ENOMEM, NOT_FOUND for ENOENT, IO otherwise; the text reads
// "<what>: <errno text>". error is positive.
Status system_status(const std::string &what, int error);

}  // namespace sllm
