// The in-place engine against libllama loading the same model in its normal way.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"
#include "engine/llama/model_skeleton.h"
#include "store/host_copy.h"
#include "test/checkpoint_fixture.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/temp_folder.h"

namespace {

using sllm::BatchToken;
using sllm::Code;
using sllm::LlamaOptions;
using sllm::llama::LlamaBackend;

// libllama by itself, with the context settings of the engine.
test::Trace trace_plain(const std::string &gguf_path, bool repack) {
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    llama_model_params model_params = llama_model_default_params();
    model_params.use_extra_bufts = repack;
    llama_model *model = llama_model_load_from_file(gguf_path.c_str(), model_params);
    CHECK(model != nullptr);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_batch = params.n_ubatch = 64;
    params.n_seq_max = 2;
    params.n_threads = params.n_threads_batch = 1;
    params.kv_unified = true;
    llama_context *context = llama_init_from_model(model, params);
    CHECK(context != nullptr);
    const llama_vocab *vocab = llama_model_get_vocab(model);
    std::vector<llama_token> tokens(256);
    const auto length = static_cast<std::int32_t>(std::strlen(test::prompt_text));
    const std::int32_t n = llama_tokenize(vocab, test::prompt_text, length, tokens.data(), 256, true, false);
    test::Trace trace;
    llama_sampler *greedy = llama_sampler_init_greedy();
    llama_batch batch = llama_batch_get_one(tokens.data(), n);
    for (int i = 0; i < test::continued; i++) {
        CHECK_EQ(llama_decode(context, batch), 0);
        const float *logits = llama_get_logits_ith(context, -1);
        trace.logits.emplace_back(logits, logits + llama_vocab_n_tokens(vocab));
        tokens[0] = llama_sampler_sample(greedy, context, -1);
        trace.tokens.push_back(tokens[0]);
        batch = llama_batch_get_one(tokens.data(), 1);
    }
    llama_sampler_free(greedy);
    llama_free(context);
    llama_model_free(model);
    return trace;
}

void compare_quantized(llama_ftype ftype) {
    const test::TempFolder folder;
    const std::string gguf = test::quantize(test::sample_model(), folder / "", ftype);
    const auto checkpoint = test::make_checkpoint(gguf, folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    CHECK(engine->in_place());
    test::check_bit_equal(test::trace_engine(*engine), trace_plain(gguf, false));
}

TEST("in place: logits and greedy output are bit-equal to libllama loading the F16 file itself") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    CHECK(engine->in_place());
    test::check_bit_equal(test::trace_engine(*engine), trace_plain(test::sample_model(), true));
}

TEST("in place: logits are bit-equal for Q8_0 weights") { compare_quantized(LLAMA_FTYPE_MOSTLY_Q8_0); }

TEST("in place: logits are bit-equal for Q4_K weights") { compare_quantized(LLAMA_FTYPE_MOSTLY_Q4_K_M); }

// A copy of the weights in libllama's own layout, and the same once more after it was let go.
void compare_repacked(llama_ftype ftype) {
    const test::TempFolder folder;
    const std::string gguf = test::quantize(test::sample_model(), folder / "", ftype);
    const auto checkpoint = test::make_checkpoint(gguf, folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    sllm::LlamaOptions options = test::engine_options(checkpoint);
    options.repacked = true;
    const auto engine = test::open_backend(options, copied.path);
    CHECK(!engine->in_place());
    const test::Trace expected = trace_plain(gguf, true);
    test::check_bit_equal(test::trace_engine(*engine), expected);
    CHECK_OK(engine->park(false));
    CHECK_OK(engine->attach(copied.path));
    test::check_bit_equal(test::trace_engine(*engine), expected);
}

TEST("in place: a repacked copy gives the logits of libllama's own, Q4_K") {
    compare_repacked(LLAMA_FTYPE_MOSTLY_Q4_K_M);
}

TEST("in place: a repacked copy gives the logits of libllama's own, Q4_0") {
    compare_repacked(LLAMA_FTYPE_MOSTLY_Q4_0);
}

// Whole pages of a tensor's memory that are there.
std::size_t resident_pages(const ggml_tensor *tensor) {
    constexpr std::uintptr_t page = 4096;
    const auto base = reinterpret_cast<std::uintptr_t>(tensor->data);
    const std::uintptr_t first = (base + page - 1) / page * page;
    const std::uintptr_t last = (base + ggml_nbytes(tensor)) / page * page;
    std::vector<unsigned char> pages((last - first) / page);
    CHECK_EQ(::mincore(reinterpret_cast<void *>(first), last - first, pages.data()), 0);
    return static_cast<std::size_t>(std::count_if(pages.begin(), pages.end(), [](auto p) { return (p & 1) != 0; }));
}

TEST("in place: weights that were let go leave no repacked copy behind") {
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    const test::TempFolder folder;
    const std::string gguf = test::quantize(test::sample_model(), folder / "", LLAMA_FTYPE_MOSTLY_Q4_0);
    const auto checkpoint = test::make_checkpoint(gguf, folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    std::unique_ptr<sllm::llama::ModelSkeleton> skeleton;
    const sllm::llama::SkeletonWish wish{checkpoint.header_path, checkpoint.weights_bytes, {}, true};
    CHECK_OK(sllm::llama::ModelSkeleton::build(wish, &skeleton));
    sllm::HostCopyView view;
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), copied.path, checkpoint.weights_bytes, &view));
    CHECK_OK(skeleton->attach(std::move(view)));
    CHECK(!skeleton->repacked().empty());
    const auto largest = std::max_element(
        skeleton->repacked().begin(), skeleton->repacked().end(),
        [](const auto &a, const auto &b) { return ggml_nbytes(a.tensor) < ggml_nbytes(b.tensor); });
    CHECK(resident_pages(largest->tensor) > 0);
    CHECK_OK(skeleton->detach());
    CHECK_EQ(resident_pages(largest->tensor), 0U);
}

TEST("in place: weights in another order are copied and give the same logits") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::reversed);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    CHECK(!engine->in_place());
    test::check_bit_equal(test::trace_engine(*engine), trace_plain(test::sample_model(), true));
}

TEST("in place: two engines compute on the pages of one host copy and copy none of them") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto first = test::open_backend(test::engine_options(checkpoint), copied.path);
    const auto second = test::open_backend(test::engine_options(checkpoint), copied.path);
    const test::Trace one = test::trace_engine(*first);
    test::check_bit_equal(test::trace_engine(*second), one);
    const test::Mapped weights = test::mapped("memfd:sllm-arena");
    // Both mappings are resident in full, and no page of them is this process's own.
    CHECK(weights.rss_kb * 1024 > checkpoint.weights_bytes * 3 / 2);
    CHECK_EQ(weights.private_kb, 0u);
}

TEST("in place: the hook in the CPU buffer type is gone after a build, and after a refused one") {
    CHECK_OK(sllm::llama::prepare_libraries(test::engine_libraries()));
    ggml_backend_buffer_type_t type = ggml_backend_cpu_buffer_type();
    const auto alloc = type->iface.alloc_buffer;
    const auto alignment = type->iface.get_alignment;
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    {
        const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
        CHECK(type->iface.alloc_buffer == alloc && type->iface.get_alignment == alignment);
    }
    // A header whose tensors libllama does not find.
    auto bytes = test::read_file(checkpoint.header_path);
    const std::string name = "output_norm.weight";
    const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
    CHECK(at != bytes.end());
    *at = 'x';
    test::write_file(checkpoint.header_path, bytes);
    std::unique_ptr<sllm::Backend> refused;
    const sllm::Status status = LlamaBackend::build(test::engine_options(checkpoint), &refused);
    CHECK_EQ(status.code(), sllm::Code::model_unsupported);
    CHECK(status.message().find("output_norm.weight") != std::string::npos);
    CHECK(type->iface.alloc_buffer == alloc && type->iface.get_alignment == alignment);
}

TEST("in place: a slot that was used before answers as a fresh one") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    const test::Trace fresh = test::trace_engine(*engine);
    for (const std::uint32_t slot : {0u, 1u}) {
        std::vector<BatchToken> batch;
        for (std::uint32_t i = 0; i < 40; i++) {
            batch.push_back({static_cast<std::int32_t>(i + 7 + slot), i, slot, i == 39});
        }
        CHECK_OK(engine->begin(slot, {}, {}));
        CHECK_OK(engine->decode(batch));
    }
    for (const std::uint32_t slot : {1u, 0u}) {
        engine->end(slot);
        engine->cut(slot, 0);
    }
    test::check_bit_equal(test::trace_engine(*engine), fresh);
}

TEST("in place: the KV cache costs memory only where it was written") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    LlamaOptions options = test::engine_options(checkpoint);
    // 4 layers of 2 heads with 32 values, K and V in F16: 1 KiB a token, so 256 MiB.
    options.context_tokens = 1 << 17;
    const auto before = test::anonymous_kb();
    const auto engine = test::open_backend(options, copied.path);
    test::trace_engine(*engine);
    CHECK(test::anonymous_kb() - before < 100 * 1024);
}

TEST("in place: a conversation is rendered by the model's own template, and a model without one refuses") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const std::string messages = R"([{"role":"user","content":"Who's there?"}])";
    std::string prompt;
    CHECK_OK(test::open_backend(test::engine_options(checkpoint), copied.path)->render_chat(messages, &prompt));
    CHECK_EQ(prompt, "USER:\nWho's there?\n\nASSISTANT:\n");
    auto header = test::read_file(checkpoint.header_path);
    const std::string key = "tokenizer.chat_template";
    const auto at = std::search(header.begin(), header.end(), key.begin(), key.end());
    CHECK(at != header.end());
    *at = 'x';
    test::write_file(checkpoint.header_path, header);
    const auto untaught = test::open_backend(test::engine_options(checkpoint), copied.path);
    const sllm::Status status = untaught->render_chat(messages, &prompt);
    CHECK_EQ(status.code(), Code::invalid_argument);
    CHECK(status.message().find("no chat template") != std::string::npos);
}

}  // namespace

TEST("in place: a decode tells how it gets on, operation by operation") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    const std::uint64_t before = engine->progress();
    const test::Trace trace = test::trace_engine(*engine);
    CHECK(engine->progress() > before + 10 * trace.tokens.size());
}

TEST_MAIN()
