// Steps of a model that are given up half-way: the cache is as it was, what is computed afterwards is right, and a
// cancelled request does not wait for the end of its prompt's step.
#include <thread>

#include "engine/engine.h"
#include "engine/llama/llama_backend.h"
#include "test/checkpoint_fixture.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/temp_folder.h"

namespace {

using sllm::BatchToken;
using sllm::Code;
using test::largest_difference;

constexpr std::uint32_t step_tokens = 512;

// Between equal sequences: cells are filled in another order, which is the order that attention adds up in.
constexpr float rounding = 0.02F;

struct Scene {
    explicit Scene(bool deterministic = false) {
        checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
        copy = test::load_checkpoint(checkpoint);
        sllm::LlamaOptions options = test::engine_options(checkpoint);
        options.context_tokens = 1024;
        options.batch_tokens = step_tokens;
        options.deterministic = deterministic;
        backend = test::open_backend(options, copy.path);
    }
    test::TempFolder folder;
    test::Checkpoint checkpoint;
    test::HostCopied copy;
    std::unique_ptr<sllm::llama::LlamaBackend> backend;
};

// The next tokens of a slot, any that the vocabulary has; the last one wants an output.
std::vector<BatchToken> tokens_of(std::uint32_t slot, std::uint32_t from, std::uint32_t count) {
    std::vector<BatchToken> batch;
    for (std::uint32_t i = 0; i < count; i++) {
        const auto token = static_cast<std::int32_t>(300 + (from + i) * 7 % 600);
        batch.push_back({token, from + i, slot, i + 1 == count});
    }
    return batch;
}

std::vector<float> logits_of(Scene &scene, const std::vector<BatchToken> &batch) {
    CHECK_OK(scene.backend->decode(batch));
    const float *logits = scene.backend->logits(batch.size() - 1);
    return {logits, logits + scene.backend->facts().vocabulary_tokens};
}

// Gives a decode up as soon as it has begun to compute.
void give_up(Scene &scene, const std::vector<BatchToken> &batch) {
    sllm::Status status;
    const std::uint64_t before = scene.backend->progress();
    std::thread compute([&] { status = scene.backend->decode(batch); });
    while (scene.backend->progress() < before + 3) std::this_thread::yield();
    scene.backend->abort_decodes(true);
    compute.join();
    scene.backend->abort_decodes(false);
    CHECK_EQ(status.code(), Code::cancelled);
}

TEST("abort: a step that was given up leaves the cache as it was, for all of its slots") {
    Scene scene;
    CHECK(scene.backend->facts().abortable);
    const std::vector<BatchToken> first = tokens_of(0, 0, 40);
    const std::vector<BatchToken> second = tokens_of(0, 40, 200);
    logits_of(scene, first);
    const std::vector<float> expected = logits_of(scene, second);
    scene.backend->cut(0, 40);
    // Another slot shares the beginning and goes on from there in the same call.
    scene.backend->share(0, 1, 40);
    std::vector<BatchToken> both = second;
    const std::vector<BatchToken> other = tokens_of(1, 40, 100);
    both.insert(both.end(), other.begin(), other.end());
    for (int i = 0; i < 3; i++) give_up(scene, both);
    CHECK(largest_difference(logits_of(scene, second), expected) < rounding);
    const std::vector<float> shared = logits_of(scene, other);
    scene.backend->cut(1, 0);
    logits_of(scene, tokens_of(1, 0, 40));
    CHECK(largest_difference(logits_of(scene, other), shared) < rounding);
    // Other sequences are further apart than that.
    CHECK(largest_difference(shared, expected) > 10 * rounding);
}

TEST("abort: engines whose step is several calls, as in the deterministic mode, do not give steps up") {
    Scene scene(true);
    CHECK(!scene.backend->facts().abortable);
}

// `variant`: another beginning, so that the cache holds nothing of it.
sllm::Request request_of(std::uint64_t number, std::uint32_t prompt_tokens, std::uint64_t max_tokens,
                         std::uint32_t variant = 0) {
    sllm::Request request;
    request.number = number;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    for (const BatchToken &token : tokens_of(0, 31 * variant, prompt_tokens)) request.prompt.push_back(token.token);
    return request;
}

// Tokens of a request until it has ended; its last event.
struct Ended {
    std::vector<std::int32_t> tokens;
    sllm_event last{};
};

Ended until_ended(sllm::Engine &engine, std::uint64_t request) {
    Ended ended;
    std::vector<sllm_event> events(64);
    std::string text(65'536, '\0');
    for (;;) {
        engine.events().wait(5'000'000);
        std::uint64_t n = 0;
        std::uint64_t bytes = 0;
        CHECK_OK(engine.events().drain(events.data(), events.size(), &n, text.data(), text.size(), &bytes));
        if (n == 0) throw test::Failed("no event came for five seconds");
        for (std::uint64_t i = 0; i < n; i++) {
            if (events[i].request != request) continue;
            if (events[i].kind == SLLM_EVENT_TOKEN) ended.tokens.push_back(events[i].token);
            if (events[i].kind != SLLM_EVENT_DONE && events[i].kind != SLLM_EVENT_ERROR) continue;
            ended.last = events[i];
            return ended;
        }
    }
}

TEST("abort: a cancelled prompt is not computed to the end of its step, and later answers are right") {
    Scene scene;
    sllm::Engine engine(std::move(scene.backend));
    CHECK_OK(engine.attach(scene.copy.path));
    CHECK_OK(engine.submit(request_of(1, 60, 8)));
    const std::vector<std::int32_t> expected = until_ended(engine, 1).tokens;
    const std::uint64_t computed = engine.activity().batcher.computed_tokens;
    std::uint64_t given_up = 0;
    for (std::uint32_t number = 2; number < 12; number++) {
        CHECK_OK(engine.submit(request_of(number, step_tokens - 2, 400, number)));
        const std::uint64_t before = engine.activity().progress;
        while (engine.activity().progress < before + 3 || !engine.activity().computing) std::this_thread::yield();
        CHECK_OK(engine.cancel(number));
        const Ended ended = until_ended(engine, number);
        CHECK_EQ(ended.last.status, static_cast<std::int32_t>(Code::cancelled));
        if (ended.tokens.empty()) given_up++;
    }
    // A machine that is busy may cancel some too late; without the abort every prompt would have been computed.
    CHECK(given_up > 0);
    CHECK(engine.activity().batcher.computed_tokens < computed + 10 * (step_tokens - 2));
    CHECK_OK(engine.submit(request_of(20, 60, 8)));
    CHECK(until_ended(engine, 20).tokens == expected);
}

}  // namespace

TEST_MAIN()
