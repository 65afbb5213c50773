// The sample model's vocabulary without its weights, for tests of what only needs tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common.h"
#include "llama.h"

namespace test {

class Vocabulary {
public:
    Vocabulary() {
        llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
        llama_model_params params = llama_model_default_params();
        params.vocab_only = true;
        model_.reset(llama_model_load_from_file(SLLM_TEST_MODEL, params));
        if (!model_) throw std::runtime_error("the sample model cannot be loaded");
    }

    const llama_model *model() const { return model_.get(); }
    const llama_vocab *get() const { return llama_model_get_vocab(model_.get()); }
    std::int32_t size() const { return llama_vocab_n_tokens(get()); }
    // The token that ends an answer.
    std::int32_t end() const { return llama_vocab_eos(get()); }
    std::vector<std::int32_t> tokens(const std::string &text) const {
        return common_tokenize(get(), text, false, true);
    }
    std::string text(const std::vector<std::int32_t> &tokens) const {
        std::string out;
        for (const std::int32_t token : tokens) out += common_token_to_piece(get(), token, false);
        return out;
    }

private:
    struct Free {
        void operator()(llama_model *model) const { llama_model_free(model); }
    };
    std::unique_ptr<llama_model, Free> model_;
};

}  // namespace test
