// A backend without a model: it answers a prompt with the prompt's own bytes and then ends; with ignore_eos it starts
// over. Tokens are bytes, so that characters cross token borders as they do with real vocabularies. It lets the whole
// path be tested where no model is wanted, and takes a set time per step. It checks that it is used as a backend should
// be: every token at the place where its slot's sequence ends, no more tokens than cells.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backend.h"

namespace sllm {

class EchoBackend : public Backend {
public:
    static constexpr std::int32_t end_token = 256;  // after the 256 bytes

    // kv_tokens 0: slots times context_tokens.
    EchoBackend(std::uint32_t context_tokens, std::uint32_t slots, std::uint32_t batch_tokens, std::uint32_t token_us,
                std::uint32_t kv_tokens = 0);

    const BackendFacts &facts() const override { return facts_; }
    Status tokenize(std::string_view text, bool add_special, bool parse_special,
                    std::vector<std::int32_t> *out) const override;
    // The prompt of a conversation is its last message.
    Status render_chat(std::string_view messages, std::string *out) const override;
    Status open_chat(std::string_view request, std::unique_ptr<Chat> *out) const override;
    void interrupt() override;

    Status attach(const std::string &) override { return {}; }
    Status park(bool keep_weights) override;

    // Refuses constraints: it says what it was told, whatever that looks like. Other parameters change nothing.
    Status begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) override;
    void end(std::uint32_t) override {}
    void cut(std::uint32_t slot, std::uint32_t length) override;
    void share(std::uint32_t from, std::uint32_t to, std::uint32_t length) override;
    Status decode(std::span<const BatchToken> batch) override;
    std::int32_t sample(std::uint32_t slot, std::size_t index, std::uint32_t position) override;
    Status accept(std::uint32_t, std::int32_t) override { return {}; }
    // Every token was certain.
    std::string logprobs(std::size_t index, std::int32_t token, std::uint32_t alternatives) const override;
    bool ends_generation(std::int32_t token) const override { return token == end_token; }
    void append_piece(std::uint32_t slot, std::int32_t token, std::string *out) const override;

private:
    struct Slot {
        std::vector<std::int32_t> prompt;
        std::vector<std::int32_t> held;  // as a KV cache would
    };

    BackendFacts facts_;
    const std::uint32_t token_us_;
    std::vector<Slot> slots_;
    std::mutex mutex_;
    std::condition_variable interrupt_;
    bool interrupted_ = false;  // guarded by mutex_
};

}  // namespace sllm
