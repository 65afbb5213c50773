// Vectors and scores of small models, compared with what the engine library says when it is called without anything of
// ours in between; and the runner that computes them in batches. Longer than most files because all tests share both
// scenes.
#include <cmath>
#include <cstring>
#include <map>

#include "engine/embedder.h"
#include "engine/engine.h"
#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"
#include "llama.h"
#include "test/batcher_scene.h"
#include "test/checkpoint_fixture.h"
#include "test/embedding_models.h"
#include "test/harness.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using Tokens = std::vector<std::int32_t>;
using Vector = std::vector<float>;

const char *const texts[] = {"To be, or not to be", "Romeo", "The king is dead, long live the king of all England"};

// A model, and an engine that serves it from a host copy.
struct Scene {
    explicit Scene(const std::string &gguf_path) : path(gguf_path) {
        checkpoint = test::make_checkpoint(path, folder / "", test::Order::engine);
        copy = test::load_checkpoint(checkpoint);
        options = test::engine_options(checkpoint);
        engine = test::open_backend(options, copy.path);
    }
    Tokens tokens(const std::string &text) const {
        Tokens found;
        CHECK_OK(engine->tokenize(text, true, true, &found));
        return found;
    }
    std::vector<Vector> vectors(const std::vector<Tokens> &sequences) {
        const std::vector<std::span<const std::int32_t>> spans(sequences.begin(), sequences.end());
        std::vector<Vector> found;
        CHECK_OK(engine->embed(spans, &found));
        return found;
    }

    test::TempFolder folder;
    std::string path;
    test::Checkpoint checkpoint;
    test::HostCopied copy;
    sllm::LlamaOptions options;
    std::unique_ptr<sllm::llama::LlamaBackend> engine;
};

// The vector of one sequence, by libllama alone and from the file as it was.
Vector plain_vector(const std::string &path, const Tokens &tokens, std::size_t values) {
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model *model = llama_model_load_from_file(path.c_str(), model_params);
    CHECK(model != nullptr);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 256;
    params.n_threads = params.n_threads_batch = 1;
    params.embeddings = true;
    llama_context *context = llama_init_from_model(model, params);
    CHECK(context != nullptr);
    Tokens copy = tokens;
    const llama_batch batch = llama_batch_get_one(copy.data(), static_cast<std::int32_t>(copy.size()));
    const bool remembers = llama_get_memory(context) != nullptr;
    CHECK_EQ(remembers ? llama_decode(context, batch) : llama_encode(context, batch), 0);
    const float *found = llama_get_embeddings_seq(context, 0);
    CHECK(found != nullptr);
    Vector vector(found, found + values);
    llama_free(context);
    llama_model_free(model);
    return vector;
}

double length(const Vector &vector) {
    double squares = 0;
    for (const float value : vector) squares += static_cast<double>(value) * value;
    return std::sqrt(squares);
}

double cosine(const Vector &a, const Vector &b) {
    CHECK_EQ(a.size(), b.size());
    double product = 0;
    for (std::size_t i = 0; i < a.size(); i++) product += static_cast<double>(a[i]) * b[i];
    return product / (length(a) * length(b));
}

void check_close(const Vector &found, const Vector &expected, float tolerance) {
    CHECK_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); i++) CHECK(std::abs(found[i] - expected[i]) <= tolerance);
}

// One at a time and all at once: what the engine says of a sequence is what the library says of it alone.
void check_against_library(const std::string &path) {
    Scene scene(path);
    std::vector<Tokens> sequences;
    for (const char *text : texts) sequences.push_back(scene.tokens(text));
    const std::vector<Vector> together = scene.vectors(sequences);
    CHECK_EQ(together.size(), sequences.size());
    for (std::size_t i = 0; i < sequences.size(); i++) {
        const Vector plain = plain_vector(path, sequences[i], together[i].size());
        check_close(scene.vectors({sequences[i]}).front(), plain, 1e-4F);
        // Several rows are added up by other kernels than one.
        CHECK(cosine(together[i], plain) > 0.9999);
    }
    CHECK(cosine(together[0], together[1]) < 0.999);
}

struct Outcome {
    std::vector<std::uint32_t> kinds;
    Vector vector;
    sllm_event last{};
    std::string text;
};

// An embedder that is stepped by hand.
class EmbedderScene {
public:
    explicit EmbedderScene(sllm::Backend &backend)
        : embedder(backend, sllm::Env::posix(), [this](const sllm_event &event, std::string text, std::string) {
              Outcome &outcome = outcomes[event.request];
              outcome.kinds.push_back(event.kind);
              outcome.last = event;
              outcome.text = text;
              if (event.kind != SLLM_EVENT_VECTOR) return;
              CHECK_EQ(text.size(), event.index * sizeof(float));
              outcome.vector.resize(event.index);
              std::memcpy(outcome.vector.data(), text.data(), text.size());
          }) {}
    void submit(std::uint64_t number, Tokens prompt, std::uint32_t dimensions = 0) {
        sllm::Request request;
        request.number = number;
        request.prompt = std::move(prompt);
        request.dimensions = dimensions;
        embedder.add(std::make_unique<sllm::Session>(std::move(request), 0.0));
    }

    std::map<std::uint64_t, Outcome> outcomes;
    sllm::Embedder embedder;
};

// Counts the calls that reach the engine.
class CountingBackend : public test::BackendWrapper {
public:
    using BackendWrapper::BackendWrapper;
    sllm::Status embed(std::span<const std::span<const std::int32_t>> sequences,
                       std::vector<Vector> *out) override {
        calls.push_back(sequences.size());
        return inner_.embed(sequences, out);
    }
    std::vector<std::size_t> calls;
};

TEST("embedding: a model that looks back only gives the library's vectors") {
    const test::TempFolder folder;
    check_against_library(test::pooled_sample(folder / "", LLAMA_POOLING_TYPE_LAST));
    check_against_library(test::pooled_sample(folder / "", LLAMA_POOLING_TYPE_MEAN));
}

TEST("embedding: an encoder gives the library's vectors") {
    const test::TempFolder folder;
    check_against_library(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_MEAN));
    check_against_library(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_CLS));
}

TEST("embedding: the same text gives the same vector, of length 1 and of the dimensions that were asked for") {
    const test::TempFolder folder;
    Scene scene(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_MEAN));
    CHECK_EQ(scene.engine->facts().embedding.values, 64U);
    EmbedderScene requests(*scene.engine);
    const Tokens tokens = scene.tokens(texts[0]);
    requests.submit(1, tokens);
    requests.submit(2, tokens);
    requests.submit(3, tokens, 16);
    CHECK_OK(requests.embedder.step());
    CHECK(requests.embedder.idle());
    const Vector whole = requests.outcomes[1].vector;
    CHECK(std::abs(length(whole) - 1) < 1e-6);
    CHECK(cosine(whole, requests.outcomes[2].vector) > 1 - 1e-6);
    const Vector part = requests.outcomes[3].vector;
    CHECK_EQ(part.size(), 16U);
    CHECK(std::abs(length(part) - 1) < 1e-6);
    CHECK(cosine(part, Vector(whole.begin(), whole.begin() + 16)) > 1 - 1e-6);
    CHECK_EQ(requests.outcomes[1].last.prompt_tokens, tokens.size());
    const std::vector<std::uint32_t> order{SLLM_EVENT_STARTED, SLLM_EVENT_VECTOR, SLLM_EVENT_DONE};
    CHECK(requests.outcomes[1].kinds == order);
}

TEST("embedding: requests that wait are computed together, as many as a call takes") {
    const test::TempFolder folder;
    Scene scene(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_MEAN));
    CountingBackend backend(*scene.engine);
    EmbedderScene requests(backend);
    // Calls of 128 tokens, the model's positions: two of 50 fit, one of 128.
    CHECK_EQ(backend.facts().batch_tokens, 128U);
    for (std::uint64_t i = 1; i <= 3; i++) requests.submit(i, Tokens(50, 5));
    requests.submit(4, Tokens(128, 5));
    for (std::uint64_t i = 5; i < 105; i++) requests.submit(i, Tokens(1, 5));
    while (!requests.embedder.idle()) CHECK_OK(requests.embedder.step());
    const std::vector<std::size_t> expected{2, 1, 1, 64, 36};
    CHECK(backend.calls == expected);
    for (const auto &[number, outcome] : requests.outcomes) CHECK_EQ(outcome.last.kind, std::uint32_t{SLLM_EVENT_DONE});
}

TEST("embedding: a request that waits can be cancelled, and a failure ends all") {
    class Broken : public test::BackendWrapper {
    public:
        using BackendWrapper::BackendWrapper;
        sllm::Status embed(std::span<const std::span<const std::int32_t>>, std::vector<Vector> *) override {
            return {Code::engine, "the device is gone"};
        }
    };
    const test::TempFolder folder;
    Scene scene(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_MEAN));
    Broken backend(*scene.engine);
    EmbedderScene requests(backend);
    for (std::uint64_t i = 1; i <= 3; i++) requests.submit(i, Tokens(5, 5));
    requests.embedder.cancel(2);
    requests.embedder.cancel(7);  // nobody's
    CHECK_EQ(requests.outcomes[2].last.status, std::int32_t{SLLM_E_CANCELLED});
    const sllm::Status failed = requests.embedder.step();
    CHECK_EQ(failed.code(), Code::engine);
    requests.embedder.fail_all(failed);
    CHECK(requests.embedder.idle());
    CHECK_EQ(requests.outcomes[1].last.status, std::int32_t{SLLM_E_ENGINE});
    CHECK_EQ(requests.outcomes[3].text, std::string("the device is gone"));
    CHECK_EQ(requests.outcomes.size(), 3U);
}

TEST("embedding: a reranker scores a query with each document as the library does") {
    const test::TempFolder folder;
    const std::string path = test::random_encoder(folder / "", LLAMA_POOLING_TYPE_RANK);
    Scene scene(path);
    CHECK_EQ(scene.engine->facts().embedding.values, 1U);
    std::vector<Tokens> pairs;
    for (const char *text : texts) CHECK_OK(scene.engine->tokenize_pair("Who is dead?", text, &pairs.emplace_back()));
    CHECK(pairs[0] != pairs[1]);
    const std::vector<Vector> scores = scene.vectors(pairs);
    for (std::size_t i = 0; i < pairs.size(); i++) {
        CHECK(std::abs(scores[i].at(0) - plain_vector(path, pairs[i], 1).at(0)) < 1e-4F);
    }
    CHECK(scores[0] != scores[1]);
    // A score is told as it is, whatever its size.
    EmbedderScene requests(*scene.engine);
    requests.submit(1, pairs[0]);
    CHECK_OK(requests.embedder.step());
    CHECK(std::abs(requests.outcomes[1].vector.at(0) - scores[0].at(0)) < 1e-4F);
}

TEST("embedding: an engine that was parked gives the same vectors again") {
    const test::TempFolder folder;
    Scene scene(test::pooled_sample(folder / "", LLAMA_POOLING_TYPE_LAST));
    const Tokens tokens = scene.tokens(texts[2]);
    const Vector before = scene.vectors({tokens}).front();
    CHECK_OK(scene.engine->park(false));
    CHECK_OK(scene.engine->attach(scene.copy.path));
    check_close(scene.vectors({tokens}).front(), before, 0);
    Scene encoder(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_CLS));
    CHECK_OK(encoder.engine->park(false));
    CHECK_OK(encoder.engine->attach(encoder.copy.path));
    CHECK_EQ(encoder.vectors({tokens}).size(), 1U);
}

TEST("embedding: what does not fit is refused with the bound") {
    const test::TempFolder folder;
    Scene scene(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_MEAN));
    Tokens pair;
    CHECK_EQ(scene.engine->tokenize_pair("a", "b", &pair).code(), Code::invalid_argument);
    sllm::Engine engine(std::move(scene.engine));
    sllm::Request request;
    request.prompt = Tokens(129, 5);
    CHECK_EQ(engine.submit(request).code(), Code::context_overflow);
    request.prompt = {5, 1024};
    CHECK_EQ(engine.submit(request).code(), Code::invalid_argument);
    request.prompt = {5};
    request.dimensions = 65;
    const sllm::Status refused = engine.submit(request);
    CHECK_EQ(refused.code(), Code::invalid_argument);
    CHECK_EQ(refused.message(), std::string("dimensions must be 1 to 64"));
}

TEST("embedding: deterministic mode and unknown poolings are refused with their names") {
    const test::TempFolder folder;
    const auto build = [&](const std::string &path, bool deterministic) {
        const auto checkpoint = test::make_checkpoint(path, folder / "", test::Order::engine);
        sllm::LlamaOptions options = test::engine_options(checkpoint);
        options.deterministic = deterministic;
        std::unique_ptr<sllm::Backend> backend;
        return sllm::llama::LlamaBackend::build(options, &backend);
    };
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    CHECK_EQ(build(test::pooled_sample(folder / "", LLAMA_POOLING_TYPE_LAST), true).code(), Code::model_unsupported);
    const sllm::Status unknown = build(test::pooled_sample(folder / "", 9), false);
    CHECK_EQ(unknown.code(), Code::model_unsupported);
    CHECK(unknown.message().find("llama.pooling_type is 9") != std::string::npos);
    const sllm::Status neither = build(test::random_encoder(folder / "", LLAMA_POOLING_TYPE_NONE), false);
    CHECK_EQ(neither.code(), Code::model_unsupported);
}

}  // namespace

TEST_MAIN()
