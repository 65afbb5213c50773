// One entry of the log-probabilities that follow the text of a TOKEN event; see sllm_logprob.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "sllm/sllm.h"

namespace sllm {

inline void append_logprob(std::int32_t token, double logprob, std::string_view piece, std::string *out) {
    const sllm_logprob entry{token, static_cast<std::uint32_t>(piece.size()), logprob};
    char bytes[sizeof entry];
    std::memcpy(bytes, &entry, sizeof entry);
    out->append(bytes, sizeof bytes);
    out->append(piece);
}

}  // namespace sllm
