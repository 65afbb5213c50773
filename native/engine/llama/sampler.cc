// Bias and penalties, then filters in the order top-k, typical-p, top-p, min-p, temperature; then the draw.
#include "engine/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/draw.h"

namespace sllm::llama {

namespace {

bool by_logit(const llama_token_data &a, const llama_token_data &b) { return a.logit < b.logit; }

// The inverse of the cumulative distribution at u. Summed in double in the order of the candidates, which follows from
// the logits alone.
std::int32_t pick(const llama_token_data_array &candidates, double u) {
    const llama_token_data *begin = candidates.data;
    const llama_token_data *end = candidates.data + candidates.size;
    const double top = static_cast<double>(std::max_element(begin, end, by_logit)->logit);
    double total = 0;
    for (const auto *c = begin; c != end; c++) total += std::exp(static_cast<double>(c->logit) - top);
    double left = u * total;
    const llama_token_data *last = begin;
    for (const auto *c = begin; c != end; c++) {
        const double weight = std::exp(static_cast<double>(c->logit) - top);
        left -= weight;
        if (left < 0) return c->id;
        if (weight > 0) last = c;
    }
    return last->id;  // u so close to 1 that rounding used the sum up
}

}  // namespace

Sampler::Sampler(const SamplingParams &params) : params_(params) {
    if (params.temperature <= 0) return;
    llama_sampler_chain_params chain = llama_sampler_chain_default_params();
    chain.no_perf = true;
    filters_.reset(llama_sampler_chain_init(chain));
    const auto add = [this](llama_sampler *filter) { llama_sampler_chain_add(filters_.get(), filter); };
    if (params.top_k > 0) add(llama_sampler_init_top_k(static_cast<std::int32_t>(std::min(params.top_k, 1u << 30))));
    if (params.typical_p < 1) add(llama_sampler_init_typical(static_cast<float>(params.typical_p), 1));
    if (params.top_p < 1) add(llama_sampler_init_top_p(static_cast<float>(params.top_p), 1));
    if (params.min_p > 0) add(llama_sampler_init_min_p(static_cast<float>(params.min_p), 1));
    add(llama_sampler_init_temp(static_cast<float>(params.temperature)));
}

Status Sampler::create(const llama_vocab *vocab, const SamplingParams &params, const TokenHistory &history,
                       std::unique_ptr<Sampler> *out) {
    std::unique_ptr<Sampler> sampler(new Sampler(params));
    if (!params.constraint.empty()) {
        if (Status s = Constraint::create(vocab, params.constraint, &sampler->constraint_); !s.ok()) return s;
    }
    const std::size_t tail = std::min<std::size_t>(history.prompt.size(), params.repeat_last_n);
    for (const std::int32_t token : history.prompt.last(tail)) sampler->remember(token, false);
    for (const std::int32_t token : history.output) {
        if (Status s = sampler->accept(token); !s.ok()) return s;
    }
    *out = std::move(sampler);
    return {};
}

Status Sampler::accept(std::int32_t token) {
    if (constraint_) {
        if (Status s = constraint_->accept(token); !s.ok()) return s;
    }
    remember(token, true);
    return {};
}

void Sampler::remember(std::int32_t token, bool is_output) {
    const bool counts_output = is_output && (params_.presence_penalty != 0 || params_.frequency_penalty != 0);
    if (counts_output) counts_[token].output++;
    if (params_.repeat_penalty == 1 || params_.repeat_last_n == 0) return;
    counts_[token].recent++;
    recent_.push_back(token);
    if (recent_.size() <= params_.repeat_last_n) return;
    const auto oldest = counts_.find(recent_.front());
    recent_.pop_front();
    oldest->second.recent--;
    if (oldest->second.recent == 0 && oldest->second.output == 0) counts_.erase(oldest);
}

void Sampler::apply_changes(std::vector<llama_token_data> *candidates) const {
    const auto logit = [&](std::int32_t token) -> float & {
        return (*candidates)[static_cast<std::size_t>(token)].logit;
    };
    for (const LogitBias &entry : params_.logit_bias) logit(entry.token) += entry.bias;
    for (const auto &[token, count] : counts_) {
        float &value = logit(token);
        if (count.recent > 0) {
            const auto penalty = static_cast<float>(params_.repeat_penalty);
            value = value > 0 ? value / penalty : value * penalty;
        }
        if (count.output > 0) {
            value -= static_cast<float>(params_.presence_penalty + count.output * params_.frequency_penalty);
        }
    }
}

std::int32_t Sampler::draw_from(const float *logits, std::int32_t vocabulary, std::uint32_t position, bool constrained,
                                std::vector<llama_token_data> *candidates) const {
    candidates->resize(static_cast<std::size_t>(vocabulary));
    for (std::int32_t id = 0; id < vocabulary; id++) {
        (*candidates)[static_cast<std::size_t>(id)] = {id, logits[id], 0};
    }
    if (changes_logits()) apply_changes(candidates);
    llama_token_data_array array{candidates->data(), candidates->size(), -1, false};
    if (constrained) {
        constraint_->apply(&array);
        // Filters stumble over forbidden tokens when they are all that is left.
        const auto allowed = std::remove_if(array.data, array.data + array.size,
                                            [](const llama_token_data &c) { return std::isinf(c.logit); });
        array.size = static_cast<std::size_t>(allowed - array.data);
        if (array.size == 0) return -1;
    }
    // The first of equals, as libllama's own greedy sampler.
    if (!filters_) return std::max_element(array.data, array.data + array.size, by_logit)->id;
    llama_sampler_apply(filters_.get(), &array);
    // The second draw of a position is another one: the first is known to have hit a forbidden token.
    return pick(array, draw(constrained ? splitmix64(params_.seed) : params_.seed, position));
}

std::int32_t Sampler::sample(const float *logits, std::int32_t vocabulary, std::uint32_t position,
                             std::vector<llama_token_data> *candidates) const {
    if (!filters_ && !changes_logits() && !constraint_) {
        return static_cast<std::int32_t>(std::max_element(logits, logits + vocabulary) - logits);
    }
    // Most tokens are allowed: asking the constraint about one is far cheaper than about the whole vocabulary.
    const std::int32_t token = draw_from(logits, vocabulary, position, false, candidates);
    if (!constraint_ || constraint_->allows(token)) return token;
    return draw_from(logits, vocabulary, position, true, candidates);
}

}  // namespace sllm::llama
