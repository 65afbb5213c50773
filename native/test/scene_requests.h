// Requests for scenes over the echo backend, where a token is a byte of the prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/session.h"

namespace test {

using Tokens = std::vector<std::int32_t>;

inline sllm::Request request_of(std::uint64_t number, const std::string &text, std::uint64_t max_tokens = 0) {
    sllm::Request request;
    request.number = number;
    request.max_tokens = max_tokens;
    for (const char byte : text) request.prompt.push_back(static_cast<unsigned char>(byte));
    return request;
}

// The same, held, with output that was generated elsewhere.
inline sllm::Request held(sllm::Request request, const Tokens &resume) {
    request.held = true;
    request.resume = resume;
    return request;
}

inline Tokens part(const Tokens &all, std::size_t from, std::size_t to) {
    return {all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(to)};
}

}  // namespace test
