// Copies a request with all that its pointers lead to.
#include "abi/read_request.h"

#include <string>

#include "core/limits.h"

namespace sllm::abi {

namespace {

Status read_sampling(const sllm_request &r, SamplingParams *out) {
    if ((r.logit_bias == nullptr && r.n_logit_bias > 0) || (r.constraint == nullptr && r.constraint_bytes > 0)) {
        return {Code::invalid_argument, "logit_bias or constraint is NULL"};
    }
    if (r.n_logit_bias > limits::logit_bias || r.constraint_bytes > limits::constraint_bytes) {
        return {Code::invalid_argument, "logit_bias or constraint is too long"};
    }
    out->temperature = r.temperature;
    out->top_p = r.top_p == 0 ? 1 : r.top_p;
    out->min_p = r.min_p;
    out->typical_p = r.typical_p == 0 ? 1 : r.typical_p;
    out->top_k = r.top_k;
    out->repeat_penalty = r.repeat_penalty == 0 ? 1 : r.repeat_penalty;
    out->repeat_last_n = r.repeat_last_n;
    out->presence_penalty = r.presence_penalty;
    out->frequency_penalty = r.frequency_penalty;
    out->seed = r.seed;
    out->logprobs = r.logprobs;
    for (std::uint64_t i = 0; i < r.n_logit_bias; i++) {
        out->logit_bias.push_back({r.logit_bias[i].token, r.logit_bias[i].bias});
    }
    if (r.constraint_bytes > 0) out->constraint.assign(r.constraint, r.constraint_bytes);
    return {};
}

}  // namespace

Status read_request(const sllm_request &r, Request *out) {
    if (r.n_prompt > limits::context_tokens || r.n_resume > limits::context_tokens) {
        return {Code::context_overflow, "the prompt has " + std::to_string(r.n_prompt) +
                                            " tokens, the resumed output " + std::to_string(r.n_resume)};
    }
    if (r.resume == nullptr && r.n_resume > 0) return {Code::invalid_argument, "resume is NULL"};
    if ((r.prompt == nullptr && r.n_prompt > 0) || (r.stop == nullptr && r.n_stop > 0)) {
        return {Code::invalid_argument, "prompt or stop is NULL"};
    }
    if (r.n_stop > limits::stop_strings) {
        return {Code::invalid_argument, "at most " + std::to_string(limits::stop_strings) + " stop strings"};
    }
    out->number = r.request;
    if (r.n_prompt > 0) out->prompt.assign(r.prompt, r.prompt + r.n_prompt);
    if (r.n_resume > 0) out->resume.assign(r.resume, r.resume + r.n_resume);
    out->max_tokens = r.max_tokens;
    out->ignore_eos = r.ignore_eos != 0;
    out->dimensions = r.dimensions;
    out->adapter = r.adapter;
    out->held = r.held != 0;
    out->awaits_kv = r.awaits_kv != 0;
    if (Status s = read_sampling(r, &out->sampling); !s.ok()) return s;
    for (std::uint32_t i = 0; i < r.n_stop; i++) {
        if (r.stop[i].data == nullptr || r.stop[i].bytes == 0 || r.stop[i].bytes > limits::stop_bytes) {
            return {Code::invalid_argument, "a stop string has 1 to " + std::to_string(limits::stop_bytes) + " bytes"};
        }
        out->stops.emplace_back(r.stop[i].data, r.stop[i].bytes);
    }
    return {};
}

}  // namespace sllm::abi
