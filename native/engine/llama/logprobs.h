// What the model itself thought of a token.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace sllm::llama {

// Log-probabilities of the token and then of the `alternatives` likeliest, as sllm_logprob entries: the softmax of the
// bare logits, before temperature, penalties, filters or grammar. piece gives a token's bytes.
std::string logprobs_of(const float *logits, std::int32_t vocabulary, std::int32_t token, std::uint32_t alternatives,
                        const std::function<std::string(std::int32_t)> &piece);

}  // namespace sllm::llama
