// A batcher that is stepped by hand over any backend, so that tests count steps instead of measuring time; it keeps
// what every request got and checks the order of its events.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/batcher.h"

namespace test {

struct Answer {
    std::uint32_t ends = 0;
    std::vector<std::int32_t> tokens;  // resumed ones not included
    std::string resumed_text;  // as far as it was certain
    std::string text;
    std::vector<std::uint32_t> held;  // the index of every HELD event
    std::uint32_t found = 0;          // as the last HELD event tells
    std::vector<std::pair<std::int32_t, std::string>> kv;  // status and text of every KV event
    sllm_event started{};
    sllm_event last{};
};

class BatcherScene {
public:
    BatcherScene(sllm::Backend &backend, std::uint32_t prefill_tokens);

    // Time stands still unless a test moves it.
    double now_ms = 0;

    void submit(sllm::Request request);
    void cancel(std::uint64_t request) { batcher_.cancel(request); }
    void hold(std::uint64_t request) { batcher_.hold(request); }
    void extend(std::uint64_t request, std::span<const std::int32_t> tokens, bool go);
    void hurry(bool on) { batcher_.hurry(on); }
    void move_kv(const sllm::KvTransfer &transfer) { batcher_.move_kv(transfer); }
    std::uint64_t computed_tokens() const { return batcher_.activity().computed_tokens; }
    bool idle() const { return batcher_.idle(); }
    bool dominates_step(std::uint64_t request) const { return batcher_.dominates_step(request); }
    // Throws when the step fails.
    void step();
    // Until nothing is left to do; throws when that takes more than so many steps.
    void run(std::uint64_t most_steps = 100'000);

    std::map<std::uint64_t, Answer> answers;

private:
    struct Clock : sllm::Env {
        explicit Clock(const double &now) : now_(now) {}
        double now_ms() override { return now_; }
        const double &now_;
    };

    void take(const sllm_event &event, const std::string &text);

    std::map<std::uint64_t, std::uint32_t> next_index_;
    Clock clock_{now_ms};
    sllm::Batcher batcher_;
};

// Passes everything on to another backend; tests override what they want to see or change.
class BackendWrapper : public sllm::Backend {
public:
    explicit BackendWrapper(sllm::Backend &inner) : inner_(inner), facts_(inner.facts()) {}

    const sllm::BackendFacts &facts() const override { return facts_; }
    sllm::Status tokenize(std::string_view text, bool add_special, bool parse_special,
                          std::vector<std::int32_t> *out) const override {
        return inner_.tokenize(text, add_special, parse_special, out);
    }
    sllm::Status render_chat(std::string_view messages, std::string *out) const override {
        return inner_.render_chat(messages, out);
    }
    sllm::Status open_chat(std::string_view request, std::unique_ptr<sllm::Chat> *out) const override {
        return inner_.open_chat(request, out);
    }
    void interrupt() override { inner_.interrupt(); }
    void abort_decodes(bool on) override { inner_.abort_decodes(on); }
    sllm::Status attach(const std::string &path) override { return inner_.attach(path); }
    sllm::Status park(bool keep_weights) override { return inner_.park(keep_weights); }
    sllm::Status begin(std::uint32_t slot, const sllm::SamplingParams &sampling,
                       const sllm::TokenHistory &history) override {
        return inner_.begin(slot, sampling, history);
    }
    void end(std::uint32_t slot) override { inner_.end(slot); }
    void cut(std::uint32_t slot, std::uint32_t length) override { inner_.cut(slot, length); }
    void share(std::uint32_t from, std::uint32_t to, std::uint32_t length) override { inner_.share(from, to, length); }
    sllm::Status use_adapter(std::uint32_t adapter) override { return inner_.use_adapter(adapter); }
    sllm::Status decode(std::span<const sllm::BatchToken> batch) override { return inner_.decode(batch); }
    std::int32_t sample(std::uint32_t slot, std::size_t index, std::uint32_t position) override {
        return inner_.sample(slot, index, position);
    }
    sllm::Status accept(std::uint32_t slot, std::int32_t token) override { return inner_.accept(slot, token); }
    std::string logprobs(std::size_t index, std::int32_t token, std::uint32_t alternatives) const override {
        return inner_.logprobs(index, token, alternatives);
    }
    bool ends_generation(std::int32_t token) const override { return inner_.ends_generation(token); }
    void append_piece(std::uint32_t slot, std::int32_t token, std::string *out) const override {
        inner_.append_piece(slot, token, out);
    }

protected:
    sllm::Backend &inner_;
    sllm::BackendFacts facts_;
};

}  // namespace test
