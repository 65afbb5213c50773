// Engines that let their memory go and compute again: the same bits before and after, and what a parked one holds.
#include <fcntl.h>

#include <atomic>
#include <latch>
#include <thread>

#include "core/digest.h"
#include "test/checkpoint_fixture.h"
#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/model_trace.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::llama::LlamaBackend;

constexpr const char *arena_name = "memfd:sllm-arena";

std::unique_ptr<LlamaBackend> build(const test::Checkpoint &checkpoint) {
    std::unique_ptr<sllm::Backend> backend;
    CHECK_OK(LlamaBackend::build(test::engine_options(checkpoint), &backend));
    return std::unique_ptr<LlamaBackend>(static_cast<LlamaBackend *>(backend.release()));
}

std::uint64_t begin_load(sllm::Store &store, const test::Checkpoint &checkpoint) {
    std::uint64_t load = 0;
    CHECK_OK(store.load({checkpoint.weights_path, checkpoint.weights_bytes, checkpoint.chunk_bytes, checkpoint.digests},
                        &load));
    return load;
}

sllm::LoadStatus status_of(sllm::Store &store, std::uint64_t load) {
    sllm::LoadStatus status;
    CHECK_OK(store.status(load, &status));
    return status;
}

std::string path_of(sllm::Store &store, std::uint64_t load) {
    return "/proc/self/fd/" + std::to_string(status_of(store, load).fd);
}

void wait_until_ended(sllm::Store &store, std::uint64_t load) {
    while (status_of(store, load).state == 0) store.wait(100'000);
}

}  // namespace

TEST("park: an engine that kept its weights computes the same bits at once") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    const test::Trace before = test::trace_engine(*engine);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(engine->park(true));
        CHECK_OK(engine->attach(copied.path));
        test::check_bit_equal(test::trace_engine(*engine), before);
    }
}

TEST("park: weights that come back at other chunks of the arena give the same bits") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto store = test::open_store(2);
    const std::uint64_t first = begin_load(*store, checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), path_of(*store, first));
    const test::Trace before = test::trace_engine(*engine);
    CHECK_OK(engine->park(false));
    // A second copy takes other chunks; then the first one's chunks serve a third.
    const std::uint64_t second = begin_load(*store, checkpoint);
    wait_until_ended(*store, second);
    CHECK_OK(store->release(first));
    CHECK_OK(engine->attach(path_of(*store, second)));
    const std::uint64_t third = begin_load(*store, checkpoint);
    wait_until_ended(*store, third);
    test::check_bit_equal(test::trace_engine(*engine), before);
    CHECK_OK(engine->park(false));
    CHECK_OK(store->release(second));
    CHECK_OK(engine->attach(path_of(*store, third)));
    test::check_bit_equal(test::trace_engine(*engine), before);
}

TEST("park: an engine that kept a copy leaves it for another one") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto store = test::open_store(2);
    const std::uint64_t first = begin_load(*store, checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), path_of(*store, first));
    const test::Trace before = test::trace_engine(*engine);
    CHECK_OK(engine->park(true));
    const std::uint64_t second = begin_load(*store, checkpoint);
    CHECK_OK(engine->attach(path_of(*store, second)));
    // The chunks of the first are overwritten while the engine computes on the second.
    CHECK_OK(store->release(first));
    test::Checkpoint other = checkpoint;
    auto bytes = test::read_file(checkpoint.weights_path);
    for (auto &byte : bytes) byte = static_cast<std::uint8_t>(~byte);
    other.weights_path = folder / "other.bin";
    other.chunk_bytes = bytes.size();
    other.digests = {sllm::xxh3(bytes.data(), bytes.size())};
    test::write_file(other.weights_path, bytes);
    const std::uint64_t third = begin_load(*store, other);
    wait_until_ended(*store, third);
    CHECK_EQ(status_of(*store, third).state, 1);
    test::check_bit_equal(test::trace_engine(*engine), before);
}

TEST("park: a skeleton takes weights that are still arriving") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const test::Trace expected =
        test::trace_engine(*test::open_backend(test::engine_options(checkpoint), copied.path));
    test::FaultyEnv env;
    std::latch come(1);
    env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) {
        if (offset >= checkpoint.chunk_bytes) come.wait();
        return real(bytes);
    };
    // Reads that wait must not keep others from ending.
    const auto store = test::open_store(2, env, test::small_arena, sllm::ReadMethod::threads);
    const auto engine = build(checkpoint);
    const std::uint64_t load = begin_load(*store, checkpoint);
    const std::string path = path_of(*store, load);
    std::atomic<bool> attached{false};
    sllm::Status outcome;
    std::thread attaching([&] {
        outcome = engine->attach(path);
        attached = true;
    });
    while (status_of(*store, load).bytes_done == 0) store->wait(10'000);
    const bool early = attached;
    come.count_down();
    attaching.join();
    CHECK(!early);
    CHECK_OK(outcome);
    test::check_bit_equal(test::trace_engine(*engine), expected);
}

TEST("park: a copy whose load fails leaves an engine without weights that takes another") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    const test::Trace before = test::trace_engine(*engine);
    CHECK_OK(engine->park(false));
    auto broken = checkpoint;
    broken.digests.back() ^= 1;
    const auto store = test::open_store(2);
    const std::uint64_t load = begin_load(*store, broken);
    const sllm::Status failed = engine->attach(path_of(*store, load));
    CHECK_EQ(failed.code(), Code::corrupt);
    CHECK(failed.message().find("digest") != std::string::npos);
    CHECK_EQ(test::mapped(arena_name).rss_kb, 0u);
    CHECK_OK(engine->attach(copied.path));
    test::check_bit_equal(test::trace_engine(*engine), before);
}

TEST("park: the KV cache gives its memory back, and the weights where they are not kept") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    sllm::LlamaOptions options = test::engine_options(checkpoint);
    options.context_tokens = 1 << 15;
    const auto engine = test::open_backend(options, copied.path);
    const test::Trace before = test::trace_engine(*engine);
    // 1 KiB a token, so 4 MiB.
    CHECK_OK(engine->begin(1, {}, {}));
    for (std::uint32_t position = 0; position < 1 << 12; position += 64) {
        std::vector<sllm::BatchToken> batch;
        for (std::uint32_t i = 0; i < 64; i++) {
            batch.push_back({static_cast<std::int32_t>(i + 3), position + i, 1, false});
        }
        CHECK_OK(engine->decode(batch));
    }
    const std::uint64_t full = test::anonymous_kb();
    engine->end(1);
    CHECK_OK(engine->park(true));
    CHECK(test::anonymous_kb() + 3 * 1024 < full);
    CHECK(test::mapped(arena_name).rss_kb * 1024 > checkpoint.weights_bytes * 3 / 4);
    CHECK_OK(engine->park(false));
    CHECK_EQ(test::mapped(arena_name).rss_kb, 0u);
    CHECK_OK(engine->attach(copied.path));
    test::check_bit_equal(test::trace_engine(*engine), before);
}

TEST("park: weights that had to be copied are let go even when they were to be kept") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::reversed);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto engine = test::open_backend(test::engine_options(checkpoint), copied.path);
    CHECK(!engine->in_place());
    const test::Trace before = test::trace_engine(*engine);
    const std::uint64_t with = test::anonymous_kb();
    CHECK_OK(engine->park(true));
    CHECK(test::anonymous_kb() + checkpoint.weights_bytes / 1024 * 3 / 4 < with);
    CHECK_OK(engine->attach(copied.path));
    test::check_bit_equal(test::trace_engine(*engine), before);
}

TEST("park: an engine is not disturbed when another one of the same copy parks and comes back") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto copied = test::load_checkpoint(checkpoint);
    const auto one = test::open_backend(test::engine_options(checkpoint), copied.path);
    const auto other = test::open_backend(test::engine_options(checkpoint), copied.path);
    const test::Trace expected = test::trace_engine(*one);
    CHECK_OK(other->park(false));
    test::check_bit_equal(test::trace_engine(*one), expected);
    CHECK_OK(other->attach(copied.path));
    test::check_bit_equal(test::trace_engine(*other), expected);
    test::check_bit_equal(test::trace_engine(*one), expected);
}

TEST("park: a parked engine still speaks its model's language") {
    const test::TempFolder folder;
    const auto checkpoint = test::make_checkpoint(test::sample_model(), folder / "", test::Order::engine);
    const auto engine = build(checkpoint);
    std::vector<std::int32_t> tokens;
    CHECK_OK(engine->tokenize("Who's there?", true, false, &tokens));
    CHECK(tokens.size() > 2);
    std::string prompt;
    CHECK_OK(engine->render_chat(R"([{"role":"user","content":"Who's there?"}])", &prompt));
    CHECK_EQ(prompt, "USER:\nWho's there?\n\nASSISTANT:\n");
}

TEST_MAIN()
