// The shares of a step that prompts and held sequences get, from what steps have taken.
#include <algorithm>
#include <random>

#include "core/limits.h"
#include "engine/echo_backend.h"
#include "engine/step_shares.h"
#include "test/batcher_scene.h"
#include "test/harness.h"
#include "test/scene_requests.h"

namespace {

using sllm::StepLimits;
using sllm::StepRecord;
using sllm::StepShares;
namespace limits = sllm::limits;

constexpr StepLimits most{512, 256, limits::held_tokens};

std::uint32_t held_of(const StepShares &shares) { return shares.limits(most, 2, true).held_tokens; }

}  // namespace

TEST("shares: before anything was measured a step takes what it may, and few held tokens") {
    const StepShares shares;
    CHECK_EQ(shares.limits(most, 1, true).prefill_tokens, 256u);
    CHECK_EQ(shares.limits(most, 1, false).batch_tokens, 512u);
    CHECK_EQ(held_of(shares), limits::held_tokens_first);
}

TEST("shares: prompts take what makes a step four times as long as one of streams alone") {
    StepShares shares;
    for (int i = 0; i < 50; i++) shares.observe({100, 1, 0, 0});
    for (int i = 0; i < 100; i++) {
        const std::uint32_t prompts = shares.limits(most, 2, true).prefill_tokens;
        shares.observe({100 + 20 + 2.0 * prompts, 1, prompts, 0});
    }
    // Twenty milliseconds are the call's own.
    const std::uint32_t tokens = shares.limits(most, 2, true).prefill_tokens;
    CHECK(tokens >= 130 && tokens <= 141);
    // With no stream there is only who comes meanwhile.
    CHECK_EQ(shares.limits(most, 1, false).batch_tokens, 512u);
    CHECK_EQ(shares.limits(most, 200, true).batch_tokens, 512u);
}

TEST("shares: steps that nobody notices are not cut shorter, and slow ones have a least") {
    StepShares fast;
    for (int i = 0; i < 50; i++) fast.observe({1, 1, 0, 0}), fast.observe({1 + 0.25 * 128, 1, 128, 0});
    CHECK_EQ(fast.limits(most, 2, true).prefill_tokens, 200u);
    CHECK_EQ(fast.limits(most, 2, false).batch_tokens, 512u);
    StepShares slow;
    for (int i = 0; i < 50; i++) slow.observe({5'000, 0, 50, 0});
    CHECK_EQ(slow.limits(most, 2, true).prefill_tokens, limits::prompt_tokens_least);
    CHECK(slow.limits(most, 2, false).batch_tokens - 49u <= 1);
    CHECK_EQ(slow.limits(most, 200, false).batch_tokens, 200u);
}

TEST("shares: a few tokens of a prompt and steps of two kinds say nothing of what a token costs") {
    StepShares shares;
    shares.observe({10, 1, 0, 0});
    shares.observe({900, 1, 3, 0});
    shares.observe({900, 1, 100, 4});
    CHECK_EQ(shares.limits(most, 2, true).prefill_tokens, 256u);
}

TEST("shares: streams that stay lose what they can spare of a step to held sequences, and no more") {
    StepShares shares;
    for (int i = 0; i < 50; i++) shares.observe({100, 1, 0, 0});
    // Ten milliseconds for the call and two for each token: twenty make a step half as long again.
    for (int i = 0; i < 100; i++) {
        shares.observe({110 + 2.0 * held_of(shares), 1, 0, held_of(shares)});
        CHECK(held_of(shares) <= 21);
    }
    CHECK(held_of(shares) >= 16);
    // What is left of a round says nothing about a whole one.
    const std::uint32_t before = held_of(shares);
    for (int i = 0; i < 50; i++) shares.observe({100, 1, 0, 1});
    CHECK_EQ(held_of(shares), before);
    // Where they cost more than can be spared, the least that gets on.
    for (int i = 0; i < 100; i++) shares.observe({100 + 50.0 * held_of(shares), 1, 0, held_of(shares)});
    CHECK_EQ(held_of(shares), limits::held_tokens_first);
    // Where they cost nothing, as many as a step may take.
    for (int i = 0; i < 100; i++) shares.observe({100, 1, 0, held_of(shares)});
    CHECK_EQ(held_of(shares), limits::held_tokens);
}

TEST("shares: a prompt makes a step four times as long while an answer runs, and no longer without one") {
    // Eighty milliseconds for a call and four for each token of it.
    struct Slow : test::BackendWrapper {
        using BackendWrapper::BackendWrapper;
        sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
            scene->now_ms += 80 + 4.0 * static_cast<double>(batch.size());
            largest = std::max(largest, batch.size());
            return inner_.decode(batch);
        }
        test::BatcherScene *scene = nullptr;
        std::size_t largest = 0;
    };
    sllm::EchoBackend echo(20'000, 2, 512, 0);
    Slow backend(echo);
    test::BatcherScene scene(backend, 256);
    backend.scene = &scene;
    sllm::Request stays = test::request_of(1, "abc", 300);
    stays.ignore_eos = true;
    scene.submit(stays);
    for (int i = 0; i < 20; i++) scene.step();
    scene.submit(test::request_of(2, std::string(9'000, 'x'), 1));
    // The first step is as long as the settings let it, for nothing is known; those after it learn.
    for (int i = 0; i < 20; i++) scene.step();
    backend.largest = 0;
    for (int i = 0; i < 50; i++) {
        const double began_ms = scene.now_ms;
        scene.step();
        CHECK(scene.now_ms - began_ms <= 4 * 84);
    }
    CHECK(backend.largest >= 55);
    scene.cancel(1);
    scene.step();
    backend.largest = 0;
    scene.step();
    CHECK_EQ(backend.largest, 512u);
}

TEST("shares: whatever is measured, a step is within what it may take and gets on") {
    std::mt19937_64 random(test::seed());
    StepShares shares;
    for (int i = 0; i < 20'000; i++) {
        const auto one = [&](std::uint64_t below) { return static_cast<std::uint32_t>(random() % below); };
        const std::size_t running = 1 + one(64);
        const bool with_streams = one(2) == 0;
        const StepLimits now = shares.limits(most, running, with_streams);
        CHECK(now.batch_tokens <= most.batch_tokens && now.batch_tokens >= running);
        CHECK(now.prefill_tokens <= most.prefill_tokens && now.prefill_tokens >= limits::prompt_tokens_least);
        CHECK(now.held_tokens <= most.held_tokens && now.held_tokens >= limits::held_tokens_first);
        const double ms = one(10) == 0 ? 0 : one(30'000) / 10.0;
        shares.observe({ms, one(4), one(3) == 0 ? one(400) : 0, one(3) == 0 ? one(64) : 0});
    }
}

TEST_MAIN()
