// The probe: what it chooses, when it gives up, and what is kept of it.
#include <atomic>
#include <cerrno>
#include <map>

#include "store/probe.h"
#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/small_weights.h"

using sllm::Code;
using sllm::LoadStatus;
using sllm::ReadMethod;
using sllm::ReadSettings;
using test::page;
using test::Weights;

namespace {

constexpr ReadSettings small_ways[] = {
    {ReadMethod::threads, false, 8 * page, 8 * page},
    {ReadMethod::threads, false, 16 * page, 16 * page},
    {ReadMethod::threads, false, 4 * page, 4 * page},
};

// Time passes only while a disk reads. One read is in flight in all of small_ways, so that the sum is right.
class DiskTime : public test::FaultyEnv {
public:
    double now_ms() override { return ms_.load(); }
    void pass(int ms) { ms_ += ms; }

private:
    std::atomic<int> ms_ = 0;
};

// A disk that has its own mind about the size of reads, in milliseconds for each.
sllm::ProbeResult probed(const Weights &weights, const std::map<std::size_t, int> &costs_ms) {
    DiskTime env;
    env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        const int ms = costs_ms.at(bytes);
        if (ms < 0) return -EIO;
        env.pass(ms);
        return real(bytes);
    };
    sllm::ProbeResult found;
    CHECK_OK(sllm::probe(env, weights.request.weights_path, small_ways, 30, [] { return true; }, &found));
    return found;
}

}  // namespace

TEST("probe: the probe takes the fastest way that works, and the first of those that are alike") {
    const Weights weights(64, 64);
    CHECK_EQ(probed(weights, {{8 * page, 9}, {16 * page, 3}, {4 * page, 9}}).settings.block_bytes, 16 * page);
    CHECK_EQ(probed(weights, {{8 * page, 4}, {16 * page, -1}, {4 * page, 4}}).settings.block_bytes, 8 * page);
    CHECK_EQ(probed(weights, {{8 * page, -1}, {16 * page, -1}, {4 * page, 1}}).settings.block_bytes, 4 * page);
    CHECK_EQ(probed(weights, {{8 * page, 3}, {16 * page, 6}, {4 * page, 6}}).settings.block_bytes, 8 * page);
}

TEST("probe: a probe that is disturbed ends without a finding") {
    const Weights weights(64, 64);
    test::FaultyEnv env;
    sllm::ProbeResult found;
    int asked = 0;
    const sllm::Status status = sllm::probe(
        env, weights.request.weights_path, small_ways, 10'000, [&] { return ++asked < 3; }, &found);
    CHECK_EQ(status.code(), Code::closed);
    CHECK_EQ(sllm::probe(env, weights.request.weights_path + ".missing", small_ways, 1, [] { return true; }, &found)
                 .code(),
             Code::not_found);
}

TEST("probe: what a probe found is written down and read again, and nothing else is believed") {
    sllm::ProbeResult result;
    result.settings = {ReadMethod::threads, false, 1 << 20, 32 << 20};
    result.bytes_per_second = 2.5e9;
    sllm::ProbeResult again;
    CHECK(sllm::from_text(sllm::to_text(result), &again));
    CHECK(again.settings.method == ReadMethod::threads && !again.settings.direct);
    CHECK_EQ(again.settings.block_bytes, 1u << 20);
    CHECK_EQ(again.settings.in_flight_bytes, 32u << 20);
    CHECK_EQ(again.bytes_per_second, 2.5e9);
    for (const char *bad : {"", "io_uring", "io_uring direct 0 65536 1", "io_uring direct 1000 65536 1",
                            "io_uring direct 65536 4096 1", "tape direct 65536 65536 1", "io_uring direct 65536 x 1",
                            "io_uring direct 33554432 67108864 1", "io_uring direct 65536 99999999999999 1",
                            "io_uring direct 65536 65536 -1", "io_uring direct 65536 65536 nan"}) {
        CHECK(!sllm::from_text(bad, &again));
    }
}

TEST("probe: a volume is read as an earlier run found out") {
    const Weights weights(40, 4);
    const test::TempFolder state;
    sllm::StoreOptions options;
    options.arena = test::small_arena;
    options.probe = true;
    options.state_dir = state / "";
    sllm::VolumeStatus before;
    {
        const auto store = test::open_store(options);
        before = test::volume_of(*store, weights);
        CHECK(!before.probed);
    }
    sllm::ProbeResult known;
    known.settings = {ReadMethod::threads, true, 1 << 20, 8 << 20};
    known.bytes_per_second = 1e9;
    const std::string file = (state / "volume-") + std::to_string(before.file_system);
    CHECK(sllm::Env::posix().write_text(file, sllm::to_text(known)));
    const auto store = test::open_store(options);
    const LoadStatus status = test::load_and_wait(*store, weights.request);
    CHECK(test::content(status.fd, weights.bytes.size()) == weights.bytes);
    const sllm::VolumeStatus after = test::volume_of(*store, weights);
    CHECK(after.probed && after.settings.method == ReadMethod::threads);
    CHECK_EQ(after.settings.block_bytes, 1u << 20);
    CHECK_EQ(after.bytes_per_second, 1e9);
}

TEST_MAIN()
