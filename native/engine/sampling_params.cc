// The ranges of sampling parameters.
#include "engine/sampling_params.h"

#include "core/limits.h"

namespace sllm {

namespace {

// Unlike a range check by comparison alone, this refuses NaN.
bool within(double value, double low, double high) { return value >= low && value <= high; }

}  // namespace

Status check_sampling(const SamplingParams &params, std::uint32_t vocabulary_tokens) {
    struct Range {
        const char *text;
        bool holds;
    };
    const Range ranges[] = {
        {"temperature must be 0 to 100", within(params.temperature, 0, 100)},
        {"top_p must be 0 to 1", within(params.top_p, 0, 1)},
        {"min_p must be 0 to 1", within(params.min_p, 0, 1)},
        {"typical_p must be above 0 and at most 1", within(params.typical_p, 1e-9, 1)},
        {"repeat_penalty must be 0.01 to 100", within(params.repeat_penalty, 0.01, 100)},
        {"presence_penalty must be -100 to 100", within(params.presence_penalty, -100, 100)},
        {"frequency_penalty must be -100 to 100", within(params.frequency_penalty, -100, 100)},
    };
    for (const Range &range : ranges) {
        if (!range.holds) return {Code::invalid_argument, range.text};
    }
    if (params.repeat_last_n > limits::context_tokens) {
        return {Code::invalid_argument, "repeat_last_n must be 0 to " + std::to_string(limits::context_tokens)};
    }
    if (params.logprobs > limits::top_logprobs + 1) {
        return {Code::invalid_argument, "at most " + std::to_string(limits::top_logprobs) + " top logprobs"};
    }
    if (params.logit_bias.size() > limits::logit_bias) {
        return {Code::invalid_argument, "logit_bias has at most " + std::to_string(limits::logit_bias) + " tokens"};
    }
    for (const LogitBias &entry : params.logit_bias) {
        if (entry.token < 0 || static_cast<std::uint32_t>(entry.token) >= vocabulary_tokens) {
            return {Code::invalid_argument,
                    "logit_bias: token " + std::to_string(entry.token) + " is not in the vocabulary"};
        }
        if (!within(static_cast<double>(entry.bias), -1000, 1000)) {
            return {Code::invalid_argument, "logit_bias must be -1000 to 1000"};
        }
    }
    if (params.constraint.size() > limits::constraint_bytes) {
        return {Code::invalid_argument,
                "the constraint has more than " + std::to_string(limits::constraint_bytes) + " bytes"};
    }
    return {};
}

}  // namespace sllm
