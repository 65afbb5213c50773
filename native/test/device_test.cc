// Engines on discrete devices: what they compute, what memory they take, what they refuse.
#include <algorithm>

#include "test/device_fixture.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::DeviceShare;
using sllm::LlamaOptions;
using sllm::llama::LlamaBackend;

// How far the best logit stands above the second.
float lead(const std::vector<float> &logits) {
    std::vector<float> best = logits;
    std::partial_sort(best.begin(), best.begin() + 2, best.end(), std::greater<>());
    return best[0] - best[1];
}

// Devices add in another order than CPUs: tokens are equal, or differ first where two were as good as each other.
void check_same_greedy(const test::Trace &found, const test::Trace &expected) {
    CHECK_EQ(found.tokens.size(), expected.tokens.size());
    for (std::size_t i = 0; i < found.tokens.size(); i++) {
        if (found.tokens[i] == expected.tokens[i]) continue;
        if (lead(expected.logits[i]) <= 1e-2f) return;
        throw test::Failed("token " + std::to_string(i) + " differs, where the best logit leads by " +
                           std::to_string(lead(expected.logits[i])));
    }
}

void check_like_cpu(const test::Checkpoint &checkpoint, const std::vector<DeviceShare> &devices) {
    const auto copied = test::load_checkpoint(checkpoint);
    const test::Trace expected = test::trace_engine(*test::open_on(checkpoint, copied.path, {}));
    const auto engine = test::open_on(checkpoint, copied.path, devices);
    check_same_greedy(test::trace_engine(*engine), expected);
}

}  // namespace

TEST("device: greedy output of F16 weights is the CPU's but for near ties") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    check_like_cpu(test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine), test::one_device());
}

TEST("device: greedy output of Q8_0 weights is the CPU's but for near ties") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const std::string gguf = test::quantize(test::sample_model(), folder / "", LLAMA_FTYPE_MOSTLY_Q8_0);
    check_like_cpu(test::make_checkpoint(gguf, folder / "", test::Order::engine), test::one_device());
}

TEST("device: greedy output of a model on two devices is the CPU's but for near ties") {
    test::need_devices(test::two_devices());
    const test::TempFolder folder;
    check_like_cpu(test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine), test::two_devices());
}

TEST("device: two engines on one device answer independently") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto first = test::open_on(checkpoint, copied.path, test::one_device());
    const auto second = test::open_on(checkpoint, copied.path, test::one_device());
    const test::Trace one = test::trace_engine(*first);
    const test::Trace other = test::trace_engine(*second);
    CHECK(one.tokens == other.tokens);
}

TEST("device: an engine tells what it takes there, and gives all of it back") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    // What the driver keeps for itself is there after the first.
    test::trace_engine(*test::open_on(checkpoint, copied.path, test::one_device()));
    const std::int64_t before = test::device_used_mib();
    {
        LlamaOptions options = test::engine_options(checkpoint);
        options.devices = test::one_device();
        // 4 layers of 2 heads with 32 values, K and V in F16: 1 KiB a token, so 256 MiB.
        options.context_tokens = 1 << 17;
        std::unique_ptr<sllm::Backend> engine;
        CHECK_OK(LlamaBackend::build(options, &engine));
        CHECK_OK(engine->attach(copied.path));
        const auto memory = engine->device_memory();
        CHECK_EQ(memory.size(), 1u);
        CHECK_EQ(memory[0].name, test::device_name(0));
        CHECK(memory[0].weights_bytes > checkpoint.weights_bytes / 2);
        CHECK(memory[0].weights_bytes < checkpoint.weights_bytes + (1 << 20));
        CHECK_EQ(memory[0].context_bytes, std::uint64_t{256} << 20);
        CHECK(memory[0].compute_bytes > 0);
        CHECK(test::device_used_mib() > before + 200);
    }
    CHECK(test::device_used_mib() < before + 64);  // the heap keeps some
}

TEST("device: a device that is not there is refused with the names of those that are") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    LlamaOptions options = test::engine_options(checkpoint);
    options.devices = {{"none7", 1}};
    std::unique_ptr<sllm::Backend> refused;
    const sllm::Status status = LlamaBackend::build(options, &refused);
    CHECK_EQ(status.code(), Code::not_found);
    CHECK(status.message().find("none7") != std::string::npos);
    CHECK(status.message().find(test::device_name(0)) != std::string::npos);
}

TEST("device: an engine on a device refuses to be parked and goes on answering") {
    test::need_devices(test::one_device());
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_on(checkpoint, copied.path, test::one_device());
    const test::Trace before = test::trace_engine(*engine);
    CHECK_EQ(engine->park(true).code(), Code::wrong_state);
    CHECK(test::trace_engine(*engine).tokens == before.tokens);
}

TEST_MAIN()
