// How a store reads: several loads on one volume, memory that is not there yet, methods that are missing, and random
// faults.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/small_weights.h"

namespace {

using sllm::Code;
using sllm::LoadStatus;
using sllm::ReadMethod;
using test::page;
using test::Weights;

constexpr std::uint64_t chunk = std::uint64_t{16} << 20;

std::uint64_t inode(int fd) {
    struct stat facts {};
    CHECK_EQ(::fstat(fd, &facts), 0);
    return facts.st_ino;
}

std::uint64_t inode(const std::string &path) {
    struct stat facts {};
    CHECK_EQ(::stat(path.c_str(), &facts), 0);
    return facts.st_ino;
}

}  // namespace

TEST("reading: without io_uring, or where it is forbidden, threads read") {
    for (const int error : {-ENOSYS, -EPERM}) {
        const Weights weights(40, 4);
        test::FaultyEnv env;
        env.ring_error = error;
        const auto store = test::open_store(2, env);
        const LoadStatus status = test::load_and_wait(*store, weights.request);
        CHECK_EQ(status.message, "");
        CHECK(test::content(status.fd, weights.bytes.size()) == weights.bytes);
        CHECK(test::volume_of(*store, weights).settings.method == ReadMethod::threads);
    }
}

TEST("reading: the oldest load has three turns of four, the second one, the third waits for either") {
    // Every chunk is one read, and one read is in flight at a time.
    const Weights first(60, 1, 1);
    const Weights second(60, 1, 2);
    const Weights third(4, 1, 3);
    test::FaultyEnv env;
    std::mutex mutex;
    std::vector<std::uint64_t> order;
    std::atomic<bool> all_queued{false};
    env.on_read = [&](int fd, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        while (!all_queued) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const std::lock_guard lock(mutex);
        order.push_back(inode(fd));
        return real(bytes);
    };
    // None of them has to wait for its memory.
    const auto store = test::open_store(1, env, {test::small_arena.arena_bytes, 4 * chunk});
    while (store->arena_status().prefaulting) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::vector<std::uint64_t> loads;
    for (const Weights *weights : {&first, &second, &third}) {
        loads.push_back(0);
        CHECK_OK(store->load(weights->request, &loads.back()));
    }
    const sllm::VolumeStatus queued = test::volume_of(*store, first);
    CHECK_EQ(queued.queued_loads, 3u);
    CHECK_EQ(queued.queued_bytes, 124 * page);
    all_queued = true;
    for (const std::uint64_t load : loads) CHECK_EQ(test::wait_until_ended(*store, load).state, 1);
    std::map<std::uint64_t, int> early;
    // The very first read began before the others were there.
    for (std::size_t i = 1; i < 41; i++) early[order[i]]++;
    CHECK_EQ(early[inode(first.request.weights_path)], 30);
    CHECK_EQ(early[inode(second.request.weights_path)], 10);
    CHECK_EQ(test::volume_of(*store, first).queued_loads, 0u);
}

TEST("reading: memory that is not there is faulted in ahead of the reads, and the trace tells") {
    const Weights weights(5000, 4096);  // two chunks of the arena
    test::FaultyEnv env;
    std::atomic<bool> waited{false};
    env.before_advise = [&] {
        while (!waited) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    const auto store = test::open_store(2, env);
    std::uint64_t load = 0;
    CHECK_OK(store->load(weights.request, &load));
    LoadStatus status;
    while (status.trace.memory_wait_ms <= 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        CHECK_OK(store->status(load, &status));
    }
    waited = true;
    const double waited_ms = status.trace.memory_wait_ms;
    status = test::wait_until_ended(*store, load);
    CHECK_EQ(status.message, "");
    CHECK(status.trace.fault_ms > 0);
    CHECK(status.trace.memory_wait_ms >= waited_ms);
    CHECK(status.trace.digest_ms > 0);
    CHECK(status.trace.first_read_ms > 0 && status.trace.first_read_ms <= status.trace.first_verified_ms);
    CHECK(status.trace.first_verified_ms <= status.trace.ended_ms);
    CHECK(status.trace.last_read_ms <= status.trace.ended_ms);
    CHECK_EQ(status.trace.direct_bytes + status.trace.cached_bytes + status.trace.buffered_bytes, weights.bytes.size());
    CHECK_EQ(store->arena_status().faulted_bytes, 2 * chunk);
    CHECK(test::content(status.fd, weights.bytes.size()) == weights.bytes);
}

TEST("reading: memory of a released load is not given back before the last read into it has ended") {
    for (const ReadMethod method : test::methods) {
        const Weights weights(40, 4);
        test::FaultyEnv env;
        std::atomic<bool> reading{false};
        std::atomic<bool> go_on{false};
        env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
            reading = true;
            while (!go_on) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            return real(bytes);
        };
        const auto store = test::open_store(2, env, test::small_arena, method);
        std::uint64_t load = 0;
        CHECK_OK(store->load(weights.request, &load));
        while (!reading) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        CHECK_OK(store->release(load));
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        CHECK_EQ(store->arena_status().used_bytes, chunk);
        go_on = true;
        for (int i = 0; i < 1000 && store->arena_status().used_bytes > 0; i++) store->wait(5'000);
        CHECK_EQ(store->arena_status().used_bytes, 0u);
    }
}

TEST("reading: whatever the system does, a load ends with the right bytes or with a reason") {
    std::mt19937_64 seeds(test::seed());
    for (std::size_t round = 0; round < 30; round++) {
        const ReadMethod method = test::methods[round % test::methods.size()];
        const Weights weights(1 + seeds() % 120, 1 + seeds() % 20, seeds());
        const std::uint64_t errors = seeds() % 3;  // of a hundred reads
        test::FaultyEnv env;
        std::mutex mutex;
        std::mt19937_64 random(seeds());
        std::atomic<bool> broken{false};
        std::atomic<int> flips{0};
        env.on_read = [&](int, void *out, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
            std::uint64_t draw = 0;
            {
                const std::lock_guard lock(mutex);
                draw = random();
            }
            const std::uint64_t kind = draw % 100;
            draw /= 100;
            if (kind < errors) {
                broken = true;
                return -EIO;
            }
            if (kind < 15) return draw % 2 == 0 ? -EINTR : -EAGAIN;
            if (kind < 18) return -EINVAL;  // refuses O_DIRECT, or a read altogether
            const ssize_t n = real(kind < 40 ? 1 + draw % bytes : bytes);
            if (n > 0 && kind == 99) {
                flips++;
                static_cast<std::uint8_t *>(out)[draw % static_cast<std::uint64_t>(n)] ^= 1;
            }
            return n;
        };
        env.cached = seeds() % 4 == 0;
        const auto in_flight = static_cast<std::uint32_t>(1 + seeds() % 5);
        const auto store = test::open_store(in_flight, env, test::small_arena, method);
        const LoadStatus status = test::load_and_wait(*store, weights.request);
        if (status.state == 1) {
            CHECK(test::content(status.fd, weights.bytes.size()) == weights.bytes);
        } else if (status.state == static_cast<int>(Code::corrupt)) {
            CHECK(flips.load() >= 2 && test::mentions(status.message, "have digest"));
        } else {
            CHECK_EQ(status.state, static_cast<int>(Code::io));
            CHECK(test::mentions(status.message, weights.request.weights_path));
        }
    }
}

TEST("reading: io_uring fills registered memory, and memory that was forgotten again") {
    const Weights weights(16, 16);
    sllm::Env &env = sllm::Env::posix();
    std::unique_ptr<sllm::ReadQueue> queue;
    if (env.make_read_queue(ReadMethod::ring, 4, 3, &queue) < 0) SKIP("no io_uring");
    std::vector<std::uint8_t> memory(weights.bytes.size());
    const sllm::OwnedFd fd(env, env.open(weights.request.weights_path.c_str(), O_RDONLY));
    const auto read = [&] {
        std::fill(memory.begin(), memory.end(), 0);
        std::vector<sllm::ReadResult> results;
        for (std::uint32_t i = 0; i < 4; i++) {
            const auto quarter = static_cast<std::uint32_t>(memory.size() / 4);
            queue->add({fd.get(), memory.data() + i * quarter, quarter, i * quarter, i, 1, i % 2 == 0});
        }
        while (results.size() < 4) queue->wait(&results);
        for (const auto &result : results) CHECK_EQ(result.result, static_cast<std::int64_t>(memory.size() / 4));
        CHECK(memory == weights.bytes);
    };
    const bool registered = queue->register_buffer(1, memory);
    read();
    queue->forget_buffer(1);
    read();
    CHECK(!queue->register_buffer(3, memory));  // beyond the slots
    if (!registered) SKIP("the limit of locked memory forbids to register 64 KiB");
}

TEST("reading: chunks whose memory was taken away are read into again") {
    test::FaultyEnv env;  // has no huge pages in reserve, which would be kept
    const auto store = test::open_store(2, env);  // nothing is kept faulted in
    for (int round = 0; round < 3; round++) {
        const Weights weights(5000, 4096, static_cast<std::uint64_t>(round));
        std::uint64_t load = 0;
        CHECK_OK(store->load(weights.request, &load));
        const LoadStatus status = test::wait_until_ended(*store, load);
        CHECK_EQ(status.message, "");
        CHECK(test::content(status.fd, weights.bytes.size()) == weights.bytes);
        CHECK(test::volume_of(*store, weights).registered_bytes <= 2 * chunk);
        CHECK_OK(store->release(load));
        for (int i = 0; i < 1000 && store->arena_status().faulted_bytes > 0; i++) store->wait(5'000);
        CHECK_EQ(store->arena_status().faulted_bytes, 0u);
        CHECK_EQ(test::volume_of(*store, weights).registered_bytes, 0u);
    }
}

TEST_MAIN()
