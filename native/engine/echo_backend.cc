// How the echo remembers prompts and says them back.
#include "engine/echo_backend.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "engine/logprob_record.h"
#include "engine/message_delta.h"
#include "engine/messages.h"

namespace sllm {

namespace {

// Its answers are plain text: nobody asks it to take them apart.
class EchoChat : public Chat {
public:
    explicit EchoChat(const std::string &prompt) {
        const nlohmann::json description{
            {"prompt", prompt}, {"constraint", nullptr}, {"stops", nlohmann::json::array()}, {"plain", true}};
        description_ = description.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }

    const std::string &description() const override { return description_; }
    Status feed(std::string_view text, bool last) override {
        text_ += text;
        delta_.grow({text_, {}, {}}, last);
        return {};
    }
    std::string delta() const override { return delta_.json(); }
    void clear_delta() override { delta_.clear(); }

private:
    std::string description_;
    std::string text_;
    MessageDelta delta_;
};

}  // namespace

EchoBackend::EchoBackend(std::uint32_t context_tokens, std::uint32_t slots, std::uint32_t batch_tokens,
                         std::uint32_t token_us)
    : token_us_(token_us), slots_(slots) {
    facts_.vocabulary_tokens = end_token + 1;
    facts_.context_tokens = context_tokens;
    facts_.slots = slots;
    facts_.batch_tokens = std::max(batch_tokens, slots);
}

Status EchoBackend::tokenize(std::string_view text, bool, bool, std::vector<std::int32_t> *out) const {
    out->clear();
    for (const char byte : text) out->push_back(static_cast<unsigned char>(byte));
    return {};
}

Status EchoBackend::render_chat(std::string_view messages, std::string *out) const {
    std::vector<Message> parsed;
    if (Status s = parse_messages(messages, &parsed); !s.ok()) return s;
    *out = parsed.back().content;
    return {};
}

Status EchoBackend::open_chat(std::string_view request, std::unique_ptr<Chat> *out) const {
    const auto json = nlohmann::json::parse(request, nullptr, false);
    if (!json.is_object() || !json.contains("messages")) return {Code::invalid_argument, "there are no messages"};
    std::string prompt;
    if (Status s = render_chat(json["messages"].dump(), &prompt); !s.ok()) return s;
    *out = std::make_unique<EchoChat>(prompt);
    return {};
}

void EchoBackend::interrupt() {
    {
        const std::lock_guard lock(mutex_);
        interrupted_ = true;
    }
    interrupt_.notify_all();
}

Status EchoBackend::park(bool) {
    slots_.assign(slots_.size(), Slot{});
    return {};
}

Status EchoBackend::begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &) {
    if (!sampling.constraint.empty()) return {Code::invalid_argument, "the echo engine has no grammars"};
    slots_[slot] = Slot{};
    return {};
}

void EchoBackend::end(std::uint32_t slot) { slots_[slot] = Slot{}; }

Status EchoBackend::decode(std::span<const BatchToken> batch) {
    bool decoding = false;
    for (const BatchToken &token : batch) {
        Slot &slot = slots_[token.slot];
        if (slot.answering) {
            decoding = true;
        } else {
            slot.prompt.push_back(token.token);
            slot.answering = token.wants_output;
        }
    }
    // A step takes one token's time however many slots share it, as a batch on an accelerator does.
    std::unique_lock lock(mutex_);
    if (decoding && token_us_ > 0) {
        interrupt_.wait_for(lock, std::chrono::microseconds(token_us_), [this] { return interrupted_; });
    }
    return interrupted_ ? Status(Code::closed, "the engine is shutting down") : Status();
}

std::int32_t EchoBackend::sample(std::uint32_t index, std::size_t, std::uint32_t) {
    Slot &slot = slots_[index];
    const std::size_t round = slot.prompt.size() + 1;
    const std::size_t at = slot.said++ % round;
    return at < slot.prompt.size() ? slot.prompt[at] : end_token;
}

std::string EchoBackend::logprobs(std::size_t, std::int32_t token, std::uint32_t alternatives) const {
    std::string piece;
    append_piece(0, token, &piece);
    std::string out;
    for (std::uint32_t i = 0; i < 1 + std::min(alternatives, 1u); i++) append_logprob(token, 0, piece, &out);
    return out;
}

void EchoBackend::append_piece(std::uint32_t, std::int32_t token, std::string *out) const {
    if (token != end_token) out->push_back(static_cast<char>(token));
}

}  // namespace sllm
