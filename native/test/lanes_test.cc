// Weights that are read in several stretches side by side.
#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>

#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/small_weights.h"

using sllm::Code;
using sllm::LoadStatus;
using test::page;
using test::Weights;

TEST("lanes: they cover all chunks once, each in order, and take turns") {
    for (std::uint64_t chunks = 1; chunks < 40; chunks++) {
        for (std::uint32_t wish = 0; wish < 18; wish++) {
            const sllm::Lanes lanes(chunks, wish);
            CHECK_EQ(lanes.count(), std::clamp<std::uint64_t>(wish, 1, chunks));
            CHECK_EQ(lanes.begin(lanes.count()), chunks);
            std::vector<std::uint64_t> next;
            for (std::uint32_t lane = 0; lane < lanes.count(); lane++) next.push_back(lanes.begin(lane));
            for (std::uint64_t n = 0; n < chunks; n++) {
                const std::uint32_t lane = lanes.lane_of(lanes.nth(n));
                CHECK_EQ(lane, n % lanes.count());
                CHECK_EQ(lanes.nth(n), next[lane]++);
                CHECK(lanes.nth(n) < lanes.begin(lane + 1));
            }
        }
    }
}

TEST("lanes: every stretch of the weights grows from its beginning, and none is read before its turn") {
    Weights weights(41, 4);
    weights.request.lanes = 3;  // of 4, 4 and 3 chunks
    test::FaultyEnv env;
    std::mutex mutex;
    std::vector<std::uint64_t> order;
    env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
        const std::lock_guard lock(mutex);
        order.push_back(offset / (4 * page));
        return real(bytes);
    };
    const auto store = test::open_store(1, env);
    std::uint64_t load = 0;
    CHECK_OK(store->load(weights.request, &load));
    LoadStatus status;
    CHECK_OK(store->status(load, &status));
    sllm::HostCopyView view;
    const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes.size(), &view));
    sllm::Mapping mapped;
    CHECK_OK(view.map(&mapped));
    std::map<std::uint64_t, std::uint64_t> grown = {{0, 0}, {16 * page, 0}, {32 * page, 0}};
    CHECK_OK(view.wait_ready([&](std::uint64_t begin, std::uint64_t end) {
        const auto lane = std::prev(grown.upper_bound(begin));
        CHECK_EQ(lane->first + lane->second, begin);
        lane->second += end - begin;
        CHECK(std::equal(mapped.data() + begin, mapped.data() + end, weights.bytes.data() + begin));
    }));
    CHECK_EQ(grown.at(0) + grown.at(16 * page) + grown.at(32 * page), weights.bytes.size());
    const std::vector<std::uint64_t> turns = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7};
    CHECK(order == turns);
}

TEST("lanes: more than an engine has devices, and lanes of a stream, are refused") {
    Weights weights(8, 4);
    const auto store = test::open_store(1);
    std::uint64_t load = 0;
    weights.request.lanes = 17;
    CHECK_EQ(store->load(weights.request, &load).code(), Code::invalid_argument);
    weights.request.lanes = 2;
    weights.request.stream_chunks = 3;
    CHECK_EQ(store->load(weights.request, &load).code(), Code::invalid_argument);
}

TEST_MAIN()
