// Sampling on given logits.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/llama/sampler.h"
#include "test/harness.h"

TEST("sampling: sampling is a function of seed, position and logits") {
    std::mt19937_64 random(5);
    std::vector<float> logits(1000);
    for (float &logit : logits) logit = static_cast<float>(random() % 1000) / 100.0f;
    std::vector<llama_token_data> scratch;
    sllm::SamplingParams params;
    params.temperature = 0.8;
    params.seed = 11;
    const auto tokens_of = [&](const sllm::SamplingParams &p) {
        const sllm::llama::Sampler sampler(p);
        std::vector<std::int32_t> tokens;
        for (std::uint32_t i = 0; i < 200; i++) tokens.push_back(sampler.sample(logits.data(), 1000, i, &scratch));
        return tokens;
    };
    const auto tokens = tokens_of(params);
    CHECK(tokens == tokens_of(params));
    // A sampler that starts at position 100 goes on as the first did.
    const sllm::llama::Sampler later(params);
    for (std::uint32_t i = 100; i < 200; i++) CHECK_EQ(later.sample(logits.data(), 1000, i, &scratch), tokens[i]);
    params.seed = 12;
    CHECK(tokens != tokens_of(params));
    params.top_k = 3;
    std::vector<float> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    for (const std::int32_t token : tokens_of(params)) CHECK(logits[static_cast<std::size_t>(token)] >= sorted[2]);
    params.top_k = 1;
    const auto top = tokens_of(params);
    CHECK(std::count(top.begin(), top.end(), top[0]) == 200);
    params = {};
    CHECK_EQ(tokens_of(params)[0], top[0]);
}

TEST("sampling: the draw follows the distribution of the logits") {
    const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
    sllm::SamplingParams params;
    params.temperature = 1;
    params.seed = 3;
    const sllm::llama::Sampler sampler(params);
    std::vector<llama_token_data> scratch;
    std::vector<int> count(4);
    constexpr int n = 20'000;
    for (std::uint32_t i = 0; i < n; i++) {
        count[static_cast<std::size_t>(sampler.sample(logits.data(), 4, i, &scratch))]++;
    }
    for (std::size_t i = 0; i < 4; i++) CHECK(std::abs(count[i] / double{n} - std::exp(logits[i])) < 0.015);
}

TEST_MAIN()
