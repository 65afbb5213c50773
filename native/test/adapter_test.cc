// LoRA adapters: what an engine computes with them, compared with the engine library on the adapter's own file; and how
// requests of several adapters share an engine.
#include <thread>

#include "engine/engine.h"
#include "engine/llama/llama_backend.h"
#include "llama.h"
#include "test/adapter_files.h"
#include "test/batcher_scene.h"
#include "test/checkpoint_fixture.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using test::largest_difference;

// An adapter in a host copy, as a worker brings it.
struct Brought {
    Brought(const test::AdapterWish &wish, std::uint32_t number) {
        path = test::random_adapter(folder / "", wish);
        checkpoint = test::make_checkpoint(path, folder / "", test::Order::file);
        copy = test::load_checkpoint(checkpoint);
        files = {number, checkpoint.header_path, copy.path, checkpoint.weights_bytes, 0};
    }
    test::TempFolder folder;
    std::string path;
    test::Checkpoint checkpoint;
    test::HostCopied copy;
    sllm::AdapterFiles files;
};

struct Scene {
    explicit Scene(const std::string &model = test::sample_model(), bool repacked = false) {
        checkpoint = test::make_checkpoint(model, folder / "", test::Order::engine);
        copy = test::load_checkpoint(checkpoint);
        sllm::LlamaOptions options = test::engine_options(checkpoint);
        options.repacked = repacked;
        backend = test::open_backend(options, copy.path);
    }
    sllm::Request request(std::uint64_t number, std::uint32_t adapter, const std::string &text = "To be, or ") {
        sllm::Request request;
        request.number = number;
        request.adapter = adapter;
        request.max_tokens = 24;
        request.ignore_eos = true;
        CHECK_OK(backend->tokenize(text, true, false, &request.prompt));
        return request;
    }
    test::TempFolder folder;
    test::Checkpoint checkpoint;
    test::HostCopied copy;
    std::unique_ptr<sllm::llama::LlamaBackend> backend;
};

// Logits after the prompt, by libllama alone.
std::vector<float> plain_logits(const std::vector<std::int32_t> &prompt, const std::string &adapter, float scale,
                                const std::string &gguf_path = test::sample_model()) {
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model *model = llama_model_load_from_file(gguf_path.c_str(), model_params);
    llama_adapter_lora *lora = llama_adapter_lora_init(model, adapter.c_str());
    CHECK(lora != nullptr);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 256;
    params.n_threads = params.n_threads_batch = 1;
    llama_context *context = llama_init_from_model(model, params);
    CHECK_EQ(llama_set_adapters_lora(context, &lora, 1, &scale), 0);
    std::vector<std::int32_t> tokens = prompt;
    CHECK_EQ(llama_decode(context, llama_batch_get_one(tokens.data(), static_cast<std::int32_t>(tokens.size()))), 0);
    const float *logits = llama_get_logits_ith(context, -1);
    std::vector<float> found(logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(model)));
    llama_free(context);
    llama_model_free(model);
    return found;
}

std::vector<float> engine_logits(Scene &scene, const std::vector<std::int32_t> &prompt, std::uint32_t adapter) {
    std::vector<sllm::BatchToken> batch;
    for (const std::int32_t token : prompt) {
        batch.push_back({token, static_cast<std::uint32_t>(batch.size()), 0, batch.size() + 1 == prompt.size()});
    }
    scene.backend->cut(0, 0);
    CHECK_OK(scene.backend->use_adapter(adapter));
    CHECK_OK(scene.backend->decode(batch));
    const float *logits = scene.backend->logits(batch.size() - 1);
    return {logits, logits + scene.backend->facts().vocabulary_tokens};
}

TEST("adapter: an engine computes with it what the library does with its file") {
    Scene scene;
    Brought one({}, 1);
    Brought scaled({.seed = 2}, 7);
    scaled.files.scale = 0.5;
    CHECK_OK(scene.backend->add_adapter(one.files));
    CHECK_OK(scene.backend->add_adapter(scaled.files));
    const std::vector<std::int32_t> prompt = scene.request(1, 0).prompt;
    const std::vector<float> bare = engine_logits(scene, prompt, 0);
    const std::vector<float> with_one = engine_logits(scene, prompt, 1);
    CHECK(largest_difference(with_one, plain_logits(prompt, one.path, 1)) < 1e-3F);
    CHECK(largest_difference(engine_logits(scene, prompt, 7), plain_logits(prompt, scaled.path, 0.5F)) < 1e-3F);
    CHECK(largest_difference(with_one, bare) > 0.01F);
    // And the bare model is what it was.
    CHECK_EQ(largest_difference(engine_logits(scene, prompt, 0), bare), 0.0F);
    CHECK_EQ(largest_difference(engine_logits(scene, prompt, 1), with_one), 0.0F);
}

TEST("adapter: on the CPU it is computed with in the host copy, and nothing of it is copied") {
    constexpr std::uint64_t bytes = std::uint64_t{16} << 20;
    Scene scene;
    Brought large({.rank = test::adapter_rank(bytes)}, 1);
    const std::uint64_t before_kb = test::anonymous_kb();
    CHECK_OK(scene.backend->add_adapter(large.files));
    // The library makes room for one tensor, a quarter of the whole, while it reads.
    CHECK(test::anonymous_kb() < before_kb + bytes / 2 / 1024);
    const std::vector<std::int32_t> prompt = scene.request(1, 0).prompt;
    CHECK(largest_difference(engine_logits(scene, prompt, 1), engine_logits(scene, prompt, 0)) > 0.01F);
    scene.backend->remove_adapter(1);
    CHECK_EQ(engine_logits(scene, prompt, 0).size(), 1024U);
}

TEST("adapter: beside repacked weights it does what it does in the library, which repacks them too") {
    const test::TempFolder folder;
    const std::string quantized = test::quantize(test::sample_model(), folder / "", LLAMA_FTYPE_MOSTLY_Q4_0);
    Brought one({}, 1);
    Scene scene(quantized, true);
    CHECK(!scene.backend->in_place());
    CHECK_OK(scene.backend->add_adapter(one.files));
    const std::vector<std::int32_t> prompt = scene.request(1, 0).prompt;
    const std::vector<float> with_one = engine_logits(scene, prompt, 1);
    CHECK(largest_difference(with_one, plain_logits(prompt, one.path, 1, quantized)) < 1e-3F);
    CHECK(largest_difference(with_one, engine_logits(scene, prompt, 0)) > 0.01F);
}

TEST("adapter: requests of several adapters run side by side as each would alone") {
    Scene scene;
    Brought one({}, 1);
    Brought two({.seed = 2}, 2);
    CHECK_OK(scene.backend->add_adapter(one.files));
    CHECK_OK(scene.backend->add_adapter(two.files));
    test::BatcherScene alone(*scene.backend, 32);
    for (std::uint32_t adapter = 0; adapter <= 2; adapter++) {
        alone.submit(scene.request(adapter, adapter));
        alone.run();
    }
    CHECK(alone.answers[0].tokens != alone.answers[1].tokens);
    CHECK(alone.answers[1].tokens != alone.answers[2].tokens);
    scene.backend->cut(0, 0);
    scene.backend->cut(1, 0);
    CHECK_OK(scene.backend->use_adapter(0));
    // Two slots: two at a time, and a third that takes a slot over from another adapter.
    test::BatcherScene together(*scene.backend, 32);
    for (std::uint32_t adapter = 0; adapter <= 2; adapter++) together.submit(scene.request(adapter, adapter));
    together.run();
    for (std::uint32_t adapter = 0; adapter <= 2; adapter++) {
        CHECK(together.answers[adapter].tokens == alone.answers[adapter].tokens);
    }
}

TEST("adapter: a beginning is reused for the same adapter only") {
    Scene scene;
    Brought one({}, 1);
    CHECK_OK(scene.backend->add_adapter(one.files));
    test::BatcherScene requests(*scene.backend, 64);
    const auto cached = [&](std::uint64_t number, std::uint32_t adapter) {
        requests.submit(scene.request(number, adapter, "Now is the winter of our discontent"));
        requests.run();
        return requests.answers[number].last.cached_tokens;
    };
    CHECK_EQ(cached(1, 0), 0U);
    CHECK_EQ(cached(2, 1), 0U);
    CHECK(cached(3, 1) > 5);
}

TEST("adapter: each call computes with one adapter, the one in use first") {
    class Recorder : public test::BackendWrapper {
    public:
        using BackendWrapper::BackendWrapper;
        sllm::Status use_adapter(std::uint32_t adapter) override {
            used = adapter;
            return inner_.use_adapter(adapter);
        }
        sllm::Status decode(std::span<const sllm::BatchToken> batch) override {
            calls.push_back(used);
            return inner_.decode(batch);
        }
        std::uint32_t used = 0;
        std::vector<std::uint32_t> calls;
    };
    Scene scene;
    Brought one({}, 1);
    CHECK_OK(scene.backend->add_adapter(one.files));
    Recorder recorder(*scene.backend);
    test::BatcherScene requests(recorder, 64);
    for (const std::uint32_t adapter : {1U, 0U}) {
        sllm::Request request = scene.request(adapter, adapter);
        request.max_tokens = 3;
        requests.submit(request);
    }
    requests.run();
    // As few changes as there can be.
    const std::vector<std::uint32_t> expected{0, 1, 1, 0, 0, 1};
    CHECK(recorder.calls == expected);
}

TEST("adapter: what is no adapter of this model is refused with the library's words") {
    Scene scene;
    Brought narrow({.width = 128}, 1);
    const sllm::Status shape = scene.backend->add_adapter(narrow.files);
    CHECK_EQ(shape.code(), Code::model_unsupported);
    CHECK(shape.message().find("shape") != std::string::npos);
    Brought foreign({.architecture = "qwen2"}, 1);
    const sllm::Status other = scene.backend->add_adapter(foreign.files);
    CHECK_EQ(other.code(), Code::model_unsupported);
    CHECK(other.message().find("arch mismatch") != std::string::npos);
    const sllm::Status model = scene.backend->add_adapter(
        {1, scene.checkpoint.header_path, scene.copy.path, scene.checkpoint.weights_bytes, 0});
    CHECK_EQ(model.code(), Code::model_unsupported);
    // The engine goes on.
    CHECK_EQ(engine_logits(scene, scene.request(1, 0).prompt, 0).size(), 1024U);
}

void drain_until_done(sllm::Engine &engine, std::uint64_t request) {
    std::vector<sllm_event> events(64);
    std::string text(65'536, '\0');
    for (;;) {
        engine.events().wait(5'000'000);
        std::uint64_t n = 0;
        std::uint64_t bytes = 0;
        CHECK_OK(engine.events().drain(events.data(), events.size(), &n, text.data(), text.size(), &bytes));
        if (n == 0) throw test::Failed("no event came for five seconds");
        for (std::uint64_t i = 0; i < n; i++) {
            if (events[i].request == request && events[i].kind == SLLM_EVENT_DONE) return;
            CHECK(events[i].kind != SLLM_EVENT_ERROR);
        }
    }
}

TEST("adapter: an engine adds, refuses and removes adapters, and lets all go when it is parked") {
    Scene scene;
    Brought one({}, 1);
    Brought two({.seed = 2}, 2);
    const sllm::Request with_one = scene.request(1, 1);
    sllm::Request stream = scene.request(2, 0);
    stream.max_tokens = 200;
    CHECK_OK(scene.backend->park(false));
    sllm::Engine engine(std::move(scene.backend));
    CHECK_EQ(engine.add_adapter(one.files).code(), Code::wrong_state);
    CHECK_OK(engine.attach(scene.copy.path));
    CHECK_EQ(engine.submit(with_one).code(), Code::not_found);
    CHECK_OK(engine.submit(stream));
    CHECK_OK(engine.add_adapter(one.files));  // while the stream runs
    CHECK_EQ(engine.add_adapter(one.files).code(), Code::invalid_argument);
    CHECK_OK(engine.submit(with_one));
    CHECK_EQ(engine.remove_adapter(1).code(), Code::wrong_state);
    drain_until_done(engine, 1);
    CHECK_OK(engine.remove_adapter(1));
    CHECK_EQ(engine.remove_adapter(1).code(), Code::not_found);
    CHECK_OK(engine.cancel(2));
    for (;;) {  // the number is free when the compute thread has let it go
        const sllm::Status again = engine.add_adapter(one.files);
        if (again.ok()) break;
        CHECK_EQ(again.code(), Code::invalid_argument);
        std::this_thread::yield();
    }
    CHECK_OK(engine.add_adapter(two.files));
    sllm::Status parked = engine.park(false);
    while (parked.code() == Code::wrong_state) {  // the cancelled stream is still ending
        std::this_thread::yield();
        parked = engine.park(false);
    }
    CHECK_OK(parked);
    CHECK_OK(engine.attach(scene.copy.path));
    CHECK_EQ(engine.submit(with_one).code(), Code::not_found);
    CHECK_OK(engine.add_adapter(one.files));
    CHECK_OK(engine.submit(with_one));
}

}  // namespace

TEST_MAIN()
