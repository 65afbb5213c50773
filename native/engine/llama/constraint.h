// What an answer must look like: a grammar of libllama's, from the start or from the text that triggers it on, and the
// control tokens that belong to the answer's text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "core/status.h"
#include "llama.h"

namespace sllm::llama {

class Constraint {
public:
    // json: see sllm_request. INVALID_ARGUMENT with the reason when it cannot be read.
    static Status create(const llama_vocab *vocab, std::string_view json, std::unique_ptr<Constraint> *out);

    // Whether the token may come next.
    bool allows(std::int32_t token) const;
    // Sets the logits of tokens that may not come next to minus infinity.
    void apply(llama_token_data_array *candidates) const;
    // The token came. INVALID_ARGUMENT when it may not; a grammar that waits for its trigger and does not fit what
    // triggered it is let go instead, as nothing could be drawn any more.
    Status accept(std::int32_t token);
    bool shows(std::int32_t token) const { return shown_.contains(token); }

private:
    struct Free {
        void operator()(llama_sampler *sampler) const { llama_sampler_free(sampler); }
    };

    Constraint() = default;

    std::unique_ptr<llama_sampler, Free> grammar_;  // null: anything goes
    bool lazy_ = false;
    std::unordered_set<std::int32_t> shown_;
};

}  // namespace sllm::llama
