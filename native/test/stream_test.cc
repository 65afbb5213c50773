// Weights that pass through a few chunks of the arena on their way to one engine.
#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "core/digest.h"
#include "core/limits.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::HostCopyView;
using sllm::LoadRequest;
using sllm::LoadStatus;
using sllm::Status;

constexpr std::uint64_t chunk_bytes = sllm::limits::arena_chunk_bytes;

// Random weights of five chunks and a bit, and the request that streams them through two.
struct Weights {
    Weights() : bytes(5 * chunk_bytes + 12'288) {
        std::mt19937_64 random(7);
        std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::uint8_t>(random()); });
        test::write_file(folder / "weights.bin", bytes);
        request.weights_path = folder / "weights.bin";
        request.weights_bytes = bytes.size();
        request.chunk_bytes = chunk_bytes;
        request.stream_chunks = 2;
        for (std::uint64_t at = 0; at < bytes.size(); at += chunk_bytes) {
            request.chunk_digests.push_back(sllm::xxh3(bytes.data() + at, std::min(chunk_bytes, bytes.size() - at)));
        }
    }

    test::TempFolder folder;
    std::vector<std::uint8_t> bytes;
    LoadRequest request;
};

HostCopyView view_of(sllm::Store &store, std::uint64_t load, std::uint64_t bytes) {
    LoadStatus status;
    CHECK_OK(store.status(load, &status));
    HostCopyView view;
    CHECK_OK(HostCopyView::open(sllm::Env::posix(), "/proc/self/fd/" + std::to_string(status.fd), bytes, &view));
    return view;
}

// Compares what arrives with the weights before acknowledging it.
Status follow(const HostCopyView &view, const Weights &weights) {
    sllm::Mapping mapped;
    CHECK_OK(view.map(&mapped));
    std::uint64_t known = 0;
    return view.wait_ready([&](std::uint64_t begin, std::uint64_t end) {
        CHECK_EQ(begin, known);
        CHECK(std::equal(mapped.data() + begin, mapped.data() + end, weights.bytes.data() + begin));
        CHECK(end - begin <= 2 * chunk_bytes);
        known = end;
        view.acknowledge(known);
    });
}

}  // namespace

TEST("stream: weights larger than the arena pass through it, every byte in its order") {
    const Weights weights;
    const auto store = test::open_store(4, sllm::Env::posix(), {2 * chunk_bytes, 0});
    std::uint64_t load = 0;
    CHECK_OK(store->load(weights.request, &load));
    const HostCopyView view = view_of(*store, load, weights.bytes.size());
    CHECK(view.streamed());
    CHECK_OK(follow(view, weights));
    CHECK_EQ(store->arena_status().used_bytes, 2 * chunk_bytes);
    LoadStatus status;
    CHECK_OK(store->status(load, &status));
    CHECK_EQ(status.state, 1);
    CHECK_EQ(status.bytes_done, weights.bytes.size());
    CHECK_OK(store->release(load));
    CHECK_EQ(store->arena_status().used_bytes, 0u);
}

TEST("stream: without an acknowledgement no chunk is overwritten, and a release ends the load") {
    const Weights weights;
    const auto store = test::open_store(4);
    std::uint64_t load = 0;
    CHECK_OK(store->load(weights.request, &load));
    const HostCopyView view = view_of(*store, load, weights.bytes.size());
    sllm::Mapping mapped;
    CHECK_OK(view.map(&mapped));
    LoadStatus status;
    while (status.bytes_done < 2 * chunk_bytes) {
        store->wait(100'000);
        CHECK_OK(store->status(load, &status));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK_OK(store->status(load, &status));
    CHECK_EQ(status.bytes_done, 2 * chunk_bytes);
    CHECK_EQ(status.state, 0);
    CHECK(std::equal(mapped.data(), mapped.data() + 2 * chunk_bytes, weights.bytes.data()));
    CHECK_OK(store->release(load));
    CHECK_EQ(view.wait_ready([](std::uint64_t, std::uint64_t) {}).code(), Code::closed);
    CHECK_EQ(store->arena_status().used_bytes, 0u);
}

TEST("stream: an acknowledgement of bytes that have not come yet frees nothing") {
    const Weights weights;
    const auto store = test::open_store(4);
    std::uint64_t load = 0;
    LoadRequest request = weights.request;
    CHECK_OK(store->load(request, &load));
    const HostCopyView view = view_of(*store, load, weights.bytes.size());
    view.acknowledge(UINT64_MAX);
    // Nothing is compared: all the same every chunk was whole when its digest was taken.
    CHECK_OK(view.wait_ready([](std::uint64_t, std::uint64_t) {}));
}

TEST("stream: a chunk with a wrong digest fails it with path and offset") {
    Weights weights;
    weights.request.chunk_digests[3] ^= 1;
    const auto store = test::open_store(4);
    std::uint64_t load = 0;
    CHECK_OK(store->load(weights.request, &load));
    const Status failed = follow(view_of(*store, load, weights.bytes.size()), weights);
    CHECK_EQ(failed.code(), Code::corrupt);
    CHECK(failed.message().find(std::to_string(3 * chunk_bytes)) != std::string::npos);
}

TEST("stream: two streams and a whole copy read beside each other") {
    const Weights weights;
    const auto store = test::open_store(4, sllm::Env::posix(), {10 * chunk_bytes, 0});
    LoadRequest whole = weights.request;
    whole.stream_chunks = 0;
    std::uint64_t stalled = 0;
    std::uint64_t copied = 0;
    std::uint64_t streamed = 0;
    CHECK_OK(store->load(weights.request, &stalled));
    CHECK_OK(store->load(weights.request, &streamed));
    CHECK_OK(store->load(whole, &copied));
    CHECK_OK(follow(view_of(*store, streamed, weights.bytes.size()), weights));
    const HostCopyView view = view_of(*store, copied, weights.bytes.size());
    CHECK(!view.streamed());
    CHECK_OK(view.wait_ready([](std::uint64_t, std::uint64_t) {}));
}

TEST("stream: too few chunks for one of the checkpoint's and the next are refused") {
    Weights weights;
    weights.request.stream_chunks = 1;
    const auto store = test::open_store(4);
    std::uint64_t load = 0;
    const Status refused = store->load(weights.request, &load);
    CHECK_EQ(refused.code(), Code::invalid_argument);
    CHECK(refused.message().find("stream_chunks") != std::string::npos);
}

TEST_MAIN()
