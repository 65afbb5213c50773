// Sampling on given logits: what it is a function of, and that a sampler made from a history goes on as the old one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/llama/logprobs.h"
#include "engine/llama/sampler.h"
#include "sllm/sllm.h"
#include "test/harness.h"
#include "test/vocabulary.h"

using sllm::SamplingParams;
using sllm::llama::Sampler;
using Tokens = std::vector<std::int32_t>;
using Random = std::mt19937_64;

namespace {

std::unique_ptr<Sampler> make(const SamplingParams &params, const sllm::TokenHistory &history = {},
                              const llama_vocab *vocab = nullptr) {
    std::unique_ptr<Sampler> sampler;
    CHECK_OK(Sampler::create(vocab, params, history, &sampler));
    return sampler;
}

double number(Random &random, double low, double high) {
    return low + (high - low) * static_cast<double>(random() >> 11) * 0x1.0p-53;
}

std::vector<float> random_logits(Random &random, std::size_t n) {
    std::vector<float> logits(n);
    for (float &logit : logits) logit = static_cast<float>(number(random, -8, 8));
    return logits;
}

SamplingParams random_params(Random &random, std::int32_t vocabulary) {
    const auto maybe = [&](double off, double low, double high) {
        return random() % 2 == 0 ? off : number(random, low, high);
    };
    SamplingParams params;
    params.temperature = maybe(0, 0.1, 2);
    params.top_p = maybe(1, 0.1, 1);
    params.min_p = maybe(0, 0, 0.3);
    params.typical_p = maybe(1, 0.2, 1);
    params.top_k = random() % 2 == 0 ? 0 : static_cast<std::uint32_t>(1 + random() % 60);
    params.repeat_penalty = maybe(1, 0.8, 2);
    params.repeat_last_n = static_cast<std::uint32_t>(random() % 40);
    params.presence_penalty = maybe(0, -2, 2);
    params.frequency_penalty = maybe(0, -2, 2);
    params.seed = random();
    for (std::uint64_t i = random() % 5; i > 0; i--) {
        const auto token = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary));
        params.logit_bias.push_back({token, static_cast<float>(number(random, -5, 5))});
    }
    return params;
}

// Logits that the position decides, as a model's follow from its tokens.
std::vector<float> logits_at(std::uint64_t seed, std::size_t position, std::int32_t vocabulary) {
    Random random(seed + position);
    return random_logits(random, static_cast<std::size_t>(vocabulary));
}

// Draws tokens from `output` on until `n` are there or the sampler says that there is none.
void go_on(Sampler &sampler, std::uint64_t seed, const Tokens &prompt, std::size_t n, std::int32_t vocabulary,
           std::int32_t end, Tokens *output) {
    std::vector<llama_token_data> scratch;
    while (output->size() < n) {
        const std::size_t position = prompt.size() + output->size();
        const std::vector<float> logits = logits_at(seed, position, vocabulary);
        const std::int32_t token =
            sampler.sample(logits.data(), vocabulary, static_cast<std::uint32_t>(position), &scratch);
        if (token < 0 || token == end) return;
        CHECK_OK(sampler.accept(token));
        output->push_back(token);
    }
}

// Cuts a run at every token: a sampler made from prompt and the output so far must give the rest.
void check_every_cut(const SamplingParams &params, std::uint64_t seed, const Tokens &prompt, std::size_t n,
                     std::int32_t vocabulary, const llama_vocab *vocab, std::int32_t end) {
    Tokens whole;
    const auto first = make(params, {prompt, {}}, vocab);
    go_on(*first, seed, prompt, n, vocabulary, end, &whole);
    for (std::size_t cut = 0; cut <= whole.size(); cut++) {
        Tokens output(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut));
        const auto later = make(params, {prompt, output}, vocab);
        go_on(*later, seed, prompt, n, vocabulary, end, &output);
        CHECK(output == whole);
    }
}

constexpr const char *json_grammar =
    R"({"grammar": "root ::= object\nobject ::= \"{\" (pair (\",\" pair){0,2})? \"}\"\npair ::= string \":\" value\n)"
    R"(value ::= object | string | [0-9]{1,5} | \"true\" | \"null\"\nstring ::= \"'\" [a-z ]{0,8} \"'\"\n"})";

}  // namespace

TEST("sampling: sampling is a function of seed, position and logits") {
    std::mt19937_64 random(5);
    std::vector<float> logits(1000);
    for (float &logit : logits) logit = static_cast<float>(random() % 1000) / 100.0f;
    std::vector<llama_token_data> scratch;
    SamplingParams params;
    params.temperature = 0.8;
    params.seed = 11;
    const auto tokens_of = [&](const SamplingParams &p) {
        const auto sampler = make(p);
        std::vector<std::int32_t> tokens;
        for (std::uint32_t i = 0; i < 200; i++) tokens.push_back(sampler->sample(logits.data(), 1000, i, &scratch));
        return tokens;
    };
    const auto tokens = tokens_of(params);
    CHECK(tokens == tokens_of(params));
    // A sampler that starts at position 100 goes on as the first did.
    const auto later = make(params);
    for (std::uint32_t i = 100; i < 200; i++) CHECK_EQ(later->sample(logits.data(), 1000, i, &scratch), tokens[i]);
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
    SamplingParams params;
    params.temperature = 1;
    params.seed = 3;
    const auto sampler = make(params);
    std::vector<llama_token_data> scratch;
    std::vector<int> count(4);
    constexpr int n = 20'000;
    for (std::uint32_t i = 0; i < n; i++) {
        count[static_cast<std::size_t>(sampler->sample(logits.data(), 4, i, &scratch))]++;
    }
    for (std::size_t i = 0; i < 4; i++) CHECK(std::abs(count[i] / double{n} - std::exp(logits[i])) < 0.015);
}

TEST("sampling: a sampler made from any cut of a run goes on as the run did") {
    Random random(test::seed());
    for (int round = 0; round < 60; round++) {
        constexpr std::int32_t vocabulary = 50;
        const SamplingParams params = random_params(random, vocabulary);
        Tokens prompt(1 + random() % 30);
        for (std::int32_t &token : prompt) token = static_cast<std::int32_t>(random() % vocabulary);
        check_every_cut(params, random(), prompt, 40, vocabulary, nullptr, -1);
    }
}

TEST("sampling: a sampler made from any cut of a JSON object goes on as the undisturbed one") {
    const test::Vocabulary vocabulary;
    Random random(test::seed());
    for (int round = 0; round < 4; round++) {
        SamplingParams params = random_params(random, vocabulary.size());
        params.constraint = json_grammar;
        check_every_cut(params, random(), {1, 2, 3}, 60, vocabulary.size(), vocabulary.get(), vocabulary.end());
    }
}

TEST("sampling: what a grammar lets through always fits it, greedily and drawn") {
    const test::Vocabulary vocabulary;
    Random random(test::seed());
    for (int round = 0; round < 10; round++) {
        SamplingParams params = random_params(random, vocabulary.size());
        params.constraint = R"({"grammar": "root ::= \"<\" [0-9]{3} \">\""})";
        const auto sampler = make(params, {}, vocabulary.get());
        Tokens output;
        go_on(*sampler, random(), {1}, 20, vocabulary.size(), vocabulary.end(), &output);
        const std::string text = vocabulary.text(output);
        CHECK_EQ(text.size(), 5u);
        CHECK(text.front() == '<' && text.back() == '>' && std::all_of(text.begin() + 1, text.end() - 1, ::isdigit));
    }
}

TEST("sampling: output that a grammar does not allow and grammars that cannot be read are refused") {
    const test::Vocabulary vocabulary;
    SamplingParams params;
    params.constraint = R"({"grammar": "root ::= \"a\""})";
    std::unique_ptr<Sampler> sampler;
    const Tokens output = vocabulary.tokens("b");
    CHECK(Sampler::create(vocabulary.get(), params, {{}, output}, &sampler).code() == sllm::Code::invalid_argument);
    for (const char *constraint :
         {"[]", R"({"grammar": "root ::= undefined"})", R"({"grammar": "other ::= \"a\""})",
          R"({"grammar": "root ::= root \"a\""})", R"({"grammar": "root ::= \"a\"{3000}"})",
          R"({"grammar": 5})", R"({"grammar": "root ::= \"a\"", "lazy": true})", R"({"shown": {"a": 1}})"}) {
        params.constraint = constraint;
        const sllm::Status refusal = Sampler::create(vocabulary.get(), params, {}, &sampler);
        if (refusal.code() != sllm::Code::invalid_argument) test::fail(__FILE__, __LINE__, constraint);
    }
}

TEST("sampling: a lazy grammar holds from its trigger on") {
    const test::Vocabulary vocabulary;
    SamplingParams params;
    params.constraint = R"({"grammar": "root ::= \"CALL\" [0-9]{2}", "lazy": true,
                            "triggers": [{"type": "word", "value": "CALL"}]})";
    const auto sampler = make(params, {}, vocabulary.get());
    const Tokens before = vocabulary.tokens("anything at all, and then CALL");
    for (const std::int32_t token : before) CHECK_OK(sampler->accept(token));
    Tokens output;
    go_on(*sampler, 1, {1}, 20, vocabulary.size(), vocabulary.end(), &output);
    const std::string digits = vocabulary.text(output);
    CHECK(digits.size() == 2 && std::all_of(digits.begin(), digits.end(), ::isdigit));
}

TEST("sampling: penalties and bias move logits by what they say") {
    const std::vector<float> logits = {2, 1.9f, -1, 0};
    std::vector<llama_token_data> scratch;
    const auto greedy = [&](const SamplingParams &params, const sllm::TokenHistory &history) {
        return make(params, history)->sample(logits.data(), 4, 9, &scratch);
    };
    SamplingParams params;
    const Tokens zero = {0};
    CHECK_EQ(greedy(params, {{}, zero}), 0);
    params.presence_penalty = 0.2;
    CHECK_EQ(greedy(params, {{}, zero}), 1);
    CHECK_EQ(greedy(params, {zero, {}}), 0);  // the prompt is not the output
    params = {};
    params.frequency_penalty = 0.06;
    CHECK_EQ(greedy(params, {{}, zero}), 0);
    CHECK_EQ(greedy(params, {{}, Tokens{0, 0}}), 1);
    params = {};
    params.repeat_penalty = 1.5;
    params.repeat_last_n = 2;
    CHECK_EQ(greedy(params, {zero, {}}), 1);
    CHECK_EQ(greedy(params, {zero, Tokens{2, 3}}), 0);  // out of the window
    params = {};
    params.logit_bias = {{3, 5}};
    CHECK_EQ(greedy(params, {}), 3);
}

TEST("sampling: log-probabilities are those of the bare logits, the likeliest first") {
    const std::vector<float> logits = {std::log(0.1f), std::log(0.6f), std::log(0.3f)};
    const auto piece = [](std::int32_t id) { return std::string(static_cast<std::size_t>(id) + 1, 'x'); };
    const std::string bytes = sllm::llama::logprobs_of(logits.data(), 3, 0, 2, piece);
    std::size_t at = 0;
    for (const std::int32_t token : {0, 1, 2}) {
        sllm_logprob entry;
        std::memcpy(&entry, bytes.data() + at, sizeof entry);
        CHECK_EQ(entry.token, token);
        CHECK_EQ(entry.piece_bytes, static_cast<std::uint32_t>(token + 1));
        const float wanted = logits[static_cast<std::size_t>(token)];
        CHECK(std::abs(entry.logprob - static_cast<double>(wanted)) < 1e-6);
        at += sizeof entry + entry.piece_bytes;
    }
    CHECK_EQ(at, bytes.size());
}

TEST_MAIN()
