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
                         std::uint32_t token_us, std::uint32_t kv_tokens)
    : token_us_(token_us), slots_(slots) {
    facts_.vocabulary_tokens = end_token + 1;
    facts_.context_tokens = context_tokens;
    facts_.slots = slots;
    facts_.batch_tokens = std::max(batch_tokens, slots);
    facts_.kv.kv_tokens = kv_tokens == 0 ? slots * context_tokens : kv_tokens;
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

Status EchoBackend::begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) {
    if (!sampling.constraint.empty()) return {Code::invalid_argument, "the echo engine has no grammars"};
    slots_[slot].prompt.assign(history.prompt.begin(), history.prompt.end());
    return {};
}

void EchoBackend::cut(std::uint32_t slot, std::uint32_t length) { slots_[slot].held.resize(length); }

void EchoBackend::share(std::uint32_t from, std::uint32_t to, std::uint32_t length) {
    slots_[to].held.assign(slots_[from].held.begin(), slots_[from].held.begin() + length);
}

Status EchoBackend::decode(std::span<const BatchToken> batch) {
    bool decoding = false;
    for (const BatchToken &token : batch) {
        Slot &slot = slots_[token.slot];
        if (token.position != slot.held.size()) return {Code::internal, "a token is not at the end of its sequence"};
        decoding = decoding || token.position >= slot.prompt.size();
        slot.held.push_back(token.token);
    }
    std::size_t held = 0;
    for (const Slot &slot : slots_) held += slot.held.size();
    if (held > facts_.kv.kv_tokens) return {Code::internal, "more tokens than cells"};
    // A step takes one token's time however many slots share it, as a batch on an accelerator does.
    std::unique_lock lock(mutex_);
    if (decoding && token_us_ > 0) {
        interrupt_.wait_for(lock, std::chrono::microseconds(token_us_), [this] { return interrupted_; });
    }
    return interrupted_ ? Status(Code::closed, "the engine is shutting down") : Status();
}

std::int32_t EchoBackend::sample(std::uint32_t index, std::size_t, std::uint32_t position) {
    const Slot &slot = slots_[index];
    const std::size_t at = (position - slot.prompt.size()) % (slot.prompt.size() + 1);
    // What it says comes from the cache, so that a wrong reuse would be heard.
    return at < slot.prompt.size() ? slot.held[at] : end_token;
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
