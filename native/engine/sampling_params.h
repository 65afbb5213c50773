// How one request's tokens are chosen. Every field is a plain value: together with the tokens so far they decide each
// choice, so a generation can go on anywhere from them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"

namespace sllm {

struct LogitBias {
    std::int32_t token = 0;
    float bias = 0;  // added to the logit
};

struct SamplingParams {
    double temperature = 0;  // 0: greedy
    double top_p = 1;
    double min_p = 0;
    double typical_p = 1;
    std::uint32_t top_k = 0;  // 0: all
    // Divides (or multiplies, below zero) the logits of the last repeat_last_n tokens, prompt included; 1: off.
    double repeat_penalty = 1;
    std::uint32_t repeat_last_n = 0;
    // Subtracted from the logits of tokens in the output: once, and once per occurrence.
    double presence_penalty = 0;
    double frequency_penalty = 0;
    std::uint64_t seed = 0;
    std::vector<LogitBias> logit_bias;
    // 0: none. Otherwise the log-probability of every token is told, with those of the logprobs - 1 likeliest.
    std::uint32_t logprobs = 0;
    // What the output must look like, as JSON (see sllm_request); empty: anything.
    std::string constraint;
};

// The tokens that a sequence holds before its next one is drawn.
struct TokenHistory {
    std::span<const std::int32_t> prompt;
    std::span<const std::int32_t> output;
};

// INVALID_ARGUMENT naming the field and its range when one is out of it.
Status check_sampling(const SamplingParams &params, std::uint32_t vocabulary_tokens);

}  // namespace sllm
