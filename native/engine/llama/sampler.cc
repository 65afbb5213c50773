// Filters in the order top-k, top-p, min-p, temperature; then the draw.
#include "engine/llama/sampler.h"

#include <algorithm>
#include <cmath>

#include "engine/draw.h"

namespace sllm::llama {

namespace {

// The inverse of the cumulative distribution at u. Summed in double in the order of the candidates, which follows from
// the logits alone.
std::int32_t pick(const llama_token_data_array &candidates, double u) {
    const llama_token_data *begin = candidates.data;
    const llama_token_data *end = candidates.data + candidates.size;
    const auto by_logit = [](const llama_token_data &a, const llama_token_data &b) { return a.logit < b.logit; };
    const double top = static_cast<double>(std::max_element(begin, end, by_logit)->logit);
    double total = 0;
    for (const auto *c = begin; c != end; c++) total += std::exp(static_cast<double>(c->logit) - top);
    double left = u * total;
    for (const auto *c = begin; c != end; c++) {
        left -= std::exp(static_cast<double>(c->logit) - top);
        if (left < 0) return c->id;
    }
    return (end - 1)->id;  // u so close to 1 that rounding used the sum up
}

}  // namespace

Sampler::Sampler(const SamplingParams &params) : temperature_(params.temperature), seed_(params.seed) {
    if (temperature_ <= 0) return;
    llama_sampler_chain_params chain = llama_sampler_chain_default_params();
    chain.no_perf = true;
    filters_.reset(llama_sampler_chain_init(chain));
    const auto add = [this](llama_sampler *filter) { llama_sampler_chain_add(filters_.get(), filter); };
    if (params.top_k > 0) add(llama_sampler_init_top_k(static_cast<std::int32_t>(std::min(params.top_k, 1u << 30))));
    if (params.top_p < 1) add(llama_sampler_init_top_p(static_cast<float>(params.top_p), 1));
    if (params.min_p > 0) add(llama_sampler_init_min_p(static_cast<float>(params.min_p), 1));
    add(llama_sampler_init_temp(static_cast<float>(temperature_)));
}

std::int32_t Sampler::sample(const float *logits, std::int32_t vocabulary, std::uint32_t position,
                             std::vector<llama_token_data> *candidates) const {
    // The first of equals, as libllama's own greedy sampler.
    if (temperature_ <= 0) return static_cast<std::int32_t>(std::max_element(logits, logits + vocabulary) - logits);
    candidates->resize(static_cast<std::size_t>(vocabulary));
    for (std::int32_t id = 0; id < vocabulary; id++) {
        (*candidates)[static_cast<std::size_t>(id)] = {id, logits[id], 0};
    }
    llama_token_data_array array{candidates->data(), candidates->size(), -1, false};
    llama_sampler_apply(filters_.get(), &array);
    return pick(array, draw(seed_, position));
}

}  // namespace sllm::llama
