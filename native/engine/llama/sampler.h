// Sampling of one slot: libllama's filters, our own draw.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "llama.h"

namespace sllm::llama {

class Sampler {
public:
    explicit Sampler(const SamplingParams &params);

    // The token at `position` of the sequence: a pure function of the parameters, the position and the logits.
    // logits: one per token of the vocabulary. candidates: scratch memory.
    std::int32_t sample(const float *logits, std::int32_t vocabulary, std::uint32_t position,
                        std::vector<llama_token_data> *candidates) const;

private:
    struct Free {
        void operator()(llama_sampler *sampler) const { llama_sampler_free(sampler); }
    };

    double temperature_;
    std::uint64_t seed_;
    std::unique_ptr<llama_sampler, Free> filters_;
};

}  // namespace sllm::llama
