// Sampling of one slot: penalties and constraint of our own keeping, libllama's filters, our own draw. What it
// remembers follows from the tokens alone: a sampler made from a history goes on as the one that lived through it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/llama/constraint.h"
#include "engine/sampling_params.h"
#include "llama.h"

namespace sllm::llama {

class Sampler {
public:
    // vocab may be NULL without a constraint. INVALID_ARGUMENT when the constraint cannot be read or the output breaks
    // it.
    static Status create(const llama_vocab *vocab, const SamplingParams &params, const TokenHistory &history,
                         std::unique_ptr<Sampler> *out);

    // The token at `position` of the sequence: a pure function of the parameters, the accepted tokens, the position and
    // the logits. -1 when the constraint leaves none. logits: one per token of the vocabulary. candidates: scratch
    // memory.
    std::int32_t sample(const float *logits, std::int32_t vocabulary, std::uint32_t position,
                        std::vector<llama_token_data> *candidates) const;

    // The token is now part of the output.
    Status accept(std::int32_t token);

    // Whether the control token is part of the answer's text, because its reader wants to see it.
    bool shows(std::int32_t token) const { return constraint_ && constraint_->shows(token); }

private:
    struct Free {
        void operator()(llama_sampler *sampler) const { llama_sampler_free(sampler); }
    };
    struct Counts {
        std::uint32_t recent = 0;  // among the last repeat_last_n tokens
        std::uint32_t output = 0;
    };

    explicit Sampler(const SamplingParams &params);
    bool changes_logits() const { return !params_.logit_bias.empty() || !counts_.empty(); }
    void remember(std::int32_t token, bool is_output);
    void apply_changes(std::vector<llama_token_data> *candidates) const;
    std::int32_t draw_from(const float *logits, std::int32_t vocabulary, std::uint32_t position, bool constrained,
                           std::vector<llama_token_data> *candidates) const;

    const SamplingParams params_;
    std::unique_ptr<llama_sampler, Free> filters_;
    std::unique_ptr<Constraint> constraint_;  // null: anything goes
    std::deque<std::int32_t> recent_;
    std::unordered_map<std::int32_t, Counts> counts_;  // only tokens that a penalty applies to
};


}  // namespace sllm::llama
