// Submits, steps and collects.
#include "test/batcher_scene.h"

#include <utility>

#include "test/harness.h"

namespace test {

BatcherScene::BatcherScene(sllm::Backend &backend, std::uint32_t prefill_tokens)
    : batcher_(backend, prefill_tokens, clock_,
               [this](const sllm_event &event, const std::string &text, const std::string &) { take(event, text); }) {}

void BatcherScene::submit(sllm::Request request) {
    answers[request.number] = {};
    next_index_[request.number] = static_cast<std::uint32_t>(request.resume.size());
    batcher_.add(std::make_unique<sllm::Session>(std::move(request), 0));
}

void BatcherScene::extend(std::uint64_t request, std::span<const std::int32_t> tokens, bool go) {
    next_index_.at(request) += static_cast<std::uint32_t>(tokens.size());
    batcher_.extend(request, tokens, go);
}

void BatcherScene::step() { CHECK_OK(batcher_.step()); }

void BatcherScene::run(std::uint64_t most_steps) {
    for (std::uint64_t n = 0; !batcher_.idle(); n++) {
        if (n == most_steps) throw Failed("work is left after " + std::to_string(n) + " steps");
        step();
    }
}

void BatcherScene::take(const sllm_event &event, const std::string &text) {
    Answer &answer = answers.at(event.request);
    CHECK_EQ(answer.ends, 0u);
    answer.last = event;
    if (event.kind == SLLM_EVENT_HELD) {
        answer.held.push_back(event.index);
        answer.found = event.cached_tokens;
        return;
    }
    if (event.kind == SLLM_EVENT_KV) {
        answer.kv.emplace_back(event.status, text);
        return;
    }
    if (event.kind == SLLM_EVENT_STARTED) {
        CHECK_EQ(answer.started.kind, 0u);
        answer.started = event;
        answer.resumed_text = text;
        return;
    }
    if (event.kind == SLLM_EVENT_TOKEN) {
        CHECK_EQ(answer.started.kind, static_cast<std::uint32_t>(SLLM_EVENT_STARTED));
        CHECK_EQ(event.index, next_index_.at(event.request)++);
        answer.tokens.push_back(event.token);
    } else {
        answer.ends++;
        if (event.kind == SLLM_EVENT_DONE) CHECK_EQ(event.index, next_index_.at(event.request));
    }
    if (event.kind != SLLM_EVENT_ERROR) answer.text += text;
}

}  // namespace test
