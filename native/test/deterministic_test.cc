// The deterministic mode on the sample model: logits compared bit by bit, answers token by token. Longer than most
// files because all cases share the undisturbed run and the recorder of logits.
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "engine/llama/llama_backend.h"
#include "test/batcher_scene.h"
#include "test/harness.h"
#include "test/sample_engine.h"

namespace {

using sllm::Code;
using sllm::Request;
using test::BatcherScene;
using test::SampleModel;
using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t output = 200;

// Keeps the logits that the tokens of one request are drawn from, by position.
class Recorder : public test::BackendWrapper {
public:
    explicit Recorder(sllm::llama::LlamaBackend &inner) : BackendWrapper(inner), llama_(inner) {}
    // As if the cache had so few cells.
    void shrink(std::uint32_t kv_tokens) { facts_.kv.kv_tokens = kv_tokens; }
    void watch(const Tokens &prompt) { watched_ = prompt; }

    sllm::Status begin(std::uint32_t slot, const sllm::SamplingParams &sampling,
                       const sllm::TokenHistory &history) override {
        const bool is_it = std::equal(history.prompt.begin(), history.prompt.end(), watched_.begin(), watched_.end());
        if (is_it) slot_ = slot;
        return inner_.begin(slot, sampling, history);
    }
    void end(std::uint32_t slot) override {
        if (slot == slot_) slot_ = nowhere;
        inner_.end(slot);
    }
    std::int32_t sample(std::uint32_t slot, std::size_t index, std::uint32_t position) override {
        if (slot == slot_) {
            const float *row = llama_.logits(index);
            logits[position].assign(row, row + facts_.vocabulary_tokens);
        }
        return inner_.sample(slot, index, position);
    }

    std::map<std::uint32_t, std::vector<float>> logits;

private:
    static constexpr std::uint32_t nowhere = ~0u;
    sllm::llama::LlamaBackend &llama_;
    Tokens watched_;
    std::uint32_t slot_ = nowhere;
};

Request request_of(std::uint64_t number, Tokens prompt, std::uint64_t max_tokens, double temperature) {
    Request request;
    request.number = number;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.sampling.temperature = temperature;
    request.sampling.seed = 1234 + number;
    return request;
}

Tokens tokens_of(const sllm::Backend &backend, const std::string &text) {
    Tokens tokens;
    CHECK_OK(backend.tokenize(text, true, false, &tokens));
    return tokens;
}

Tokens random_tokens(std::mt19937_64 &random, const sllm::Backend &backend, std::size_t n) {
    Tokens tokens(n);
    for (auto &token : tokens) token = static_cast<std::int32_t>(random() % backend.facts().vocabulary_tokens);
    return tokens;
}

void check_same(const Recorder &found, const Recorder &expected, const std::string &what) {
    CHECK(!found.logits.empty());
    for (const auto &[position, row] : found.logits) {
        const auto &wanted = expected.logits.at(position);
        if (std::memcmp(row.data(), wanted.data(), row.size() * sizeof(float)) != 0) {
            throw test::Failed(what + ": logits differ at position " + std::to_string(position));
        }
    }
}

struct Undisturbed {
    explicit Undisturbed(const SampleModel &model, double temperature)
        : backend(model.open(4, 512)), recorder(*backend),
          request(request_of(1, tokens_of(*backend, "ROMEO:\nWhat light through yonder window breaks?"), output,
                             temperature)) {
        recorder.watch(request.prompt);
        BatcherScene scene(recorder, 32);
        scene.submit(request);
        scene.run();
        tokens = scene.answers[1].tokens;
        text = scene.answers[1].text;
        CHECK_EQ(tokens.size(), output);
        CHECK_EQ(recorder.logits.size(), output);
    }

    Request resumed(std::size_t cut, std::uint64_t more) const {
        Request rest = request;
        rest.resume.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(cut));
        rest.max_tokens = std::min<std::uint64_t>(output, cut + more);
        return rest;
    }
    void check_tokens(const test::Answer &answer, std::size_t cut) const {
        const auto from = tokens.begin() + static_cast<std::ptrdiff_t>(cut);
        CHECK(!answer.tokens.empty() && std::equal(answer.tokens.begin(), answer.tokens.end(), from));
    }

    std::unique_ptr<sllm::llama::LlamaBackend> backend;
    Recorder recorder;
    Request request;
    Tokens tokens;
    std::string text;
};

// Resumed alone, in an engine of other sizes: a token further, to the end now and then. At every cut in the long form,
// else at a spread of them that has every remainder of small powers of two.
void check_cuts(const SampleModel &model, const Undisturbed &whole) {
    const auto backend = model.open(3, 768);
    const std::size_t step = test::long_form() ? 1 : 11;
    for (std::size_t cut = 1; cut < output; cut += step) {
        Recorder recorder(*backend);
        recorder.watch(whole.request.prompt);
        BatcherScene scene(recorder, static_cast<std::uint32_t>(1 + cut % 37));
        const bool to_the_end = cut % 10 == 1 && (test::long_form() || cut == 111);
        scene.submit(whole.resumed(cut, to_the_end ? output : 1));
        scene.run();
        whole.check_tokens(scene.answers[1], cut);
        check_same(recorder, whole.recorder, "cut " + std::to_string(cut));
        for (std::uint32_t slot = 0; slot < 3; slot++) backend->cut(slot, 0);
    }
}

// The same among other requests that come, end and are cancelled, whose prompts are cut into steps with it.
void check_company(const SampleModel &model, const Undisturbed &whole, std::uint32_t kv_tokens) {
    std::mt19937_64 random(test::seed());
    const auto backend = model.open(4, 512);
    Recorder recorder(*backend);
    if (kv_tokens > 0) recorder.shrink(kv_tokens);
    recorder.watch(whole.request.prompt);
    BatcherScene scene(recorder, 24);
    std::uint64_t next = 2;
    for (const std::size_t cut : {0u, 77u}) {
        std::set<std::uint64_t> others;
        // Behind two others: the youngest is the one that gives way.
        for (int i = 0; i < 2; i++) {
            scene.submit(request_of(next++, random_tokens(random, *backend, 30 + random() % 100), 150, 0.7));
        }
        scene.submit(whole.resumed(cut, output));
        while (scene.answers[1].ends == 0) {
            if (random() % 6 == 0) {
                const std::size_t length = 1 + random() % 150;
                scene.submit(request_of(next, random_tokens(random, *backend, length), 1 + random() % 40, 0.7));
                others.insert(next++);
            }
            if (!others.empty() && random() % 15 == 0) {
                scene.cancel(*others.begin());
                others.erase(others.begin());
            }
            scene.step();
        }
        whole.check_tokens(scene.answers[1], cut);
        scene.run();
    }
    check_same(recorder, whole.recorder, "in company");
}

void check_type(int ftype) {
    const SampleModel model(ftype);
    const Undisturbed sampled(model, 0.8);
    check_cuts(model, sampled);
    check_company(model, sampled, 0);
    check_cuts(model, Undisturbed(model, 0));
}

}  // namespace

TEST("deterministic: F16 logits and answers are the same at all cuts, alone and in company") { check_type(-1); }

TEST("deterministic: Q8_0 logits and answers are the same at all cuts, alone and in company") {
    check_type(LLAMA_FTYPE_MOSTLY_Q8_0);
}

TEST("deterministic: Q4_K logits and answers are the same at all cuts, alone and in company") {
    check_type(LLAMA_FTYPE_MOSTLY_Q4_K_M);
}

TEST("deterministic: an answer whose request was put back and computed again is the same") {
    const SampleModel model;
    const Undisturbed whole(model, 0.8);
    check_company(model, whole, 512);
}

TEST("deterministic: threads and sizes do not matter, and the fingerprint names what does") {
    const SampleModel model;
    const Undisturbed whole(model, 0.8);
    const auto backend = model.open(2, 512, 2);
    CHECK_EQ(backend->facts().fingerprint, whole.backend->facts().fingerprint);
    CHECK(backend->facts().fingerprint.find("libggml-cpu") != std::string::npos);
    CHECK(model.open(2, 512, 1, false)->facts().fingerprint.empty());
    Recorder recorder(*backend);
    recorder.watch(whole.request.prompt);
    BatcherScene scene(recorder, 7);
    scene.submit(whole.resumed(20, 10));
    scene.run();
    check_same(recorder, whole.recorder, "two threads");
}

TEST("deterministic: a reused beginning does not change a bit") {
    const SampleModel model;
    const Undisturbed whole(model, 0.8);
    Recorder recorder(*whole.backend);
    recorder.watch(whole.request.prompt);
    BatcherScene scene(recorder, 32);
    // The prompt with another end first, then itself: its beginning comes from the cache. A whole slot of another one.
    Tokens longer = whole.request.prompt;
    longer.resize(longer.size() - 3);
    longer.insert(longer.end(), 5, 17);
    scene.submit(request_of(2, longer, 5, 0.7));
    scene.run();
    scene.submit(whole.request);
    scene.run();
    CHECK(scene.answers[1].started.cached_tokens >= longer.size() - 5);
    CHECK(scene.answers[1].tokens == whole.tokens);
    CHECK_EQ(scene.answers[1].text, whole.text);
    check_same(recorder, whole.recorder, "reused");
}

TEST("deterministic: random requests with cancels on a short cache answer as each does alone") {
    std::mt19937_64 random(test::seed());
    const SampleModel model(LLAMA_FTYPE_MOSTLY_Q8_0);
    const auto backend = model.open(4, 128);
    const auto other = model.open(1, 128);
    Recorder small(*backend);
    small.shrink(200);
    BatcherScene together(small, 16);
    BatcherScene alone(*other, 64);
    std::map<std::uint64_t, Request> asked;
    std::set<std::uint64_t> cancelled;
    const Tokens system = random_tokens(random, *backend, 30);
    for (std::uint64_t number = 1; number <= 60; number++) {
        Tokens prompt = random() % 2 == 0 ? system : Tokens();
        const Tokens own = random_tokens(random, *backend, 1 + random() % 50);
        prompt.insert(prompt.end(), own.begin(), own.end());
        asked[number] = request_of(number, prompt, 1 + random() % 40, random() % 2 == 0 ? 0 : 0.9);
        together.submit(asked[number]);
        for (std::uint64_t n = random() % 20; n > 0; n--) together.step();
        if (random() % 4 == 0) {
            const std::uint64_t victim = 1 + random() % number;
            together.cancel(victim);
            cancelled.insert(victim);
        }
    }
    together.run();
    for (const auto &[number, request] : asked) {
        const test::Answer &answer = together.answers[number];
        CHECK_EQ(answer.ends, 1u);
        alone.submit(request);
        alone.run();
        const test::Answer &expected = alone.answers[number];
        if (answer.last.kind == SLLM_EVENT_ERROR) {
            CHECK(cancelled.contains(number) && expected.text.starts_with(answer.text));
        } else {
            CHECK(answer.tokens == expected.tokens);
            CHECK_EQ(answer.text, expected.text);
        }
    }
}

TEST("deterministic: too many slots and a shared cache are refused") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    sllm::LlamaOptions options = test::engine_options(checkpoint);
    options.deterministic = true;
    options.slots = 256;
    std::unique_ptr<sllm::Backend> backend;
    CHECK_EQ(sllm::llama::LlamaBackend::build(options, &backend).code(), Code::invalid_argument);
    options.slots = 2;
    options.kv_tokens = 300;
    CHECK_EQ(sllm::llama::LlamaBackend::build(options, &backend).code(), Code::invalid_argument);
}

TEST_MAIN()
