// The store: bytes, faults, order of events, and what other processes see. Longer than most files because every fault
// shares the same small fixtures.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "store/store.h"
#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/open_store.h"
#include "test/small_weights.h"
#include "test/temp_folder.h"

using sllm::Code;
using sllm::LoadRequest;
using sllm::LoadStatus;
using sllm::Store;
using test::content;
using test::load_and_wait;
using test::mentions;
using test::methods;
using test::page;
using test::wait_until_ended;
using test::Weights;

TEST("store: a host copy holds the file's bytes, whatever its size and chunks") {
    std::mt19937_64 random(test::seed());
    const auto store_owner = test::open_store(4, sllm::Env::posix(), {2 * test::small_arena.arena_bytes, 0});
    Store &store = *store_owner;
    for (int round = 0; round < 12; round++) {
        const Weights weights(1 + random() % 200, 1 + random() % 40, random());
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.message, "");
        CHECK_EQ(status.state, 1);
        CHECK_EQ(status.bytes_done, weights.bytes.size());
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
    }
}

TEST("store: loads run at the same time and keep their numbers") {
    const auto store_owner = test::open_store(3);
    Store &store = *store_owner;
    const Weights a(50, 3, 1);
    const Weights b(70, 5, 2);
    std::uint64_t first = 0;
    std::uint64_t second = 0;
    CHECK_OK(store.load(a.request, &first));
    CHECK_OK(store.load(b.request, &second));
    CHECK(first != second);
    CHECK(content(wait_until_ended(store, first).fd, a.bytes.size()) == a.bytes);
    CHECK(content(wait_until_ended(store, second).fd, b.bytes.size()) == b.bytes);
}

TEST("store: where O_DIRECT is refused the page cache serves") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(20, 4);
        test::FaultyEnv at_open;
        at_open.direct_open_error = -EINVAL;
        const auto first_owner = test::open_store(2, at_open, test::small_arena, method);
        Store &first = *first_owner;
        LoadStatus status = load_and_wait(first, weights.request);
        CHECK_EQ(status.state, 1);
        CHECK(!status.direct_io);
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);

        test::FaultyEnv at_read;
        at_read.on_read = [](int fd, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
            return (::fcntl(fd, F_GETFL) & O_DIRECT) != 0 ? -EINVAL : real(bytes);
        };
        const auto second_owner = test::open_store(2, at_read, test::small_arena, method);
        Store &second = *second_owner;
        status = load_and_wait(second, weights.request);
        CHECK_EQ(status.state, 1);
        CHECK(!status.direct_io);
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
    }
}

TEST("store: chunks that are in the page cache are read from there, others around it") {
    const Weights weights(20, 4);
    for (const bool cached : {true, false}) {
        test::FaultyEnv env;
        env.cached = cached;
        const auto owner = test::open_store(2, env);
        const LoadStatus status = load_and_wait(*owner, weights.request);
        CHECK_EQ(status.state, 1);
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
        // Not every file system of a test has O_DIRECT.
        if (cached) CHECK(!status.direct_io);
    }
}

TEST("store: a bound on the rate holds, for loads together, and a quiet disk saves nothing up") {
    const Weights weights(1024, 64);
    sllm::StoreOptions options;
    options.arena = test::small_arena;
    options.reads = {sllm::ReadMethod::ring, true, 65'536, 4 * 65'536};
    const double bytes = static_cast<double>(weights.bytes.size());
    options.bytes_per_second = bytes / 0.1;
    const auto store = test::open_store(options);
    for (int round = 0; round < 2; round++) {
        const double begun_ms = sllm::Env::posix().now_ms();
        const LoadStatus status = load_and_wait(*store, weights.request);
        CHECK_EQ(status.state, 1);
        // The first read may begin at once, and what comes last needs no time after it.
        const double bound_ms = 100 * (1 - 2 * 65'536 / bytes);
        CHECK(sllm::Env::posix().now_ms() - begun_ms >= bound_ms);
    }
}

TEST("store: the system tells what of a file is in the page cache") {
    const Weights weights(20, 4);
    sllm::Env &env = sllm::Env::posix();
    const sllm::OwnedFd fd(env, env.open(weights.request.weights_path.c_str(), O_RDWR));
    const std::int64_t all = env.cached_bytes(fd.get(), 0, weights.bytes.size());
    if (all == -ENOSYS) throw test::Skipped("needs Linux 6.5");
    CHECK_EQ(all, static_cast<std::int64_t>(weights.bytes.size()));
    CHECK_EQ(env.cached_bytes(fd.get(), 18 * page, 10 * page), static_cast<std::int64_t>(2 * page));
    CHECK_EQ(::fsync(fd.get()), 0);
    CHECK_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    // A file system in memory keeps its pages.
    const std::int64_t left = env.cached_bytes(fd.get(), 0, weights.bytes.size());
    CHECK(left == 0 || left == all);
}

TEST("store: short and interrupted reads are continued") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(64, 16);
        test::FaultyEnv env;
        std::atomic<int> calls{0};
        env.on_read = [&](int fd, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
            const int call = calls++;
            if (call % 3 == 0) return -EINTR;
            const bool direct = (::fcntl(fd, F_GETFL) & O_DIRECT) != 0;
            // Not even a whole page: the rest is no longer aligned.
            if (call % 3 == 1 && !direct) return real(std::min<std::size_t>(bytes, 1000));
            return real(std::max<std::size_t>(page, bytes / 2 / page * page));
        };
        const auto store_owner = test::open_store(2, env, test::small_arena, method);
        Store &store = *store_owner;
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.message, "");
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
    }
}

TEST("store: a read error fails the load as IO with path, offset and errno") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(20, 4);
        test::FaultyEnv env;
        env.on_read = [](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
            return offset == 8 * page ? -EIO : real(bytes);
        };
        const auto store_owner = test::open_store(1, env, test::small_arena, method);
        Store &store = *store_owner;
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.state, static_cast<int>(Code::io));
        CHECK(mentions(status.message, weights.request.weights_path));
        CHECK(mentions(status.message, std::to_string(8 * page)));
        CHECK(mentions(status.message, sllm::errno_text(EIO)));
    }
}

TEST("store: a file of another size fails the load as CORRUPT") {
    for (const std::uint64_t pages : {19u, 21u}) {
        const Weights weights(20, 4);
        CHECK_EQ(::truncate(weights.request.weights_path.c_str(), static_cast<off_t>(pages * page)), 0);
        const auto store_owner = test::open_store(2);
        Store &store = *store_owner;
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
        CHECK(mentions(status.message, std::to_string(pages * page)));
    }
}

TEST("store: a file that shrinks while it is read fails the load as CORRUPT") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(20, 4);
        test::FaultyEnv env;
        env.on_read = [](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
            return offset >= 12 * page ? 0 : real(bytes);
        };
        const auto store_owner = test::open_store(1, env, test::small_arena, method);
        Store &store = *store_owner;
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
        CHECK(mentions(status.message, "ends at byte " + std::to_string(12 * page)));
    }
}

TEST("store: a flipped bit on disk fails the load as CORRUPT with offset and both digests") {
    const Weights weights(20, 4);
    auto bytes = weights.bytes;
    bytes[9 * page + 17] ^= 4;
    test::write_file(weights.request.weights_path, bytes);
    const auto store_owner = test::open_store(2);
    Store &store = *store_owner;
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
    CHECK(mentions(status.message, "offset " + std::to_string(8 * page)));
    char expected[17];
    std::snprintf(expected, sizeof expected, "%016llx",
                  static_cast<unsigned long long>(weights.request.chunk_digests[2]));
    CHECK(mentions(status.message, expected));
}

TEST("store: a bit flipped on its way is read once more and the load goes on") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(20, 4);
        test::FaultyEnv env;
        std::atomic<int> flips{0};
        env.on_read = [&](int, void *out, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
            const ssize_t n = real(bytes);
            if (offset == 4 * page && flips++ == 0) static_cast<std::uint8_t *>(out)[5] ^= 1;
            return n;
        };
        const auto store_owner = test::open_store(2, env, test::small_arena, method);
        Store &store = *store_owner;
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.message, "");
        CHECK_EQ(flips.load(), 2);
        CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
    }
}

TEST("store: impossible requests are refused at once") {
    const auto store_owner = test::open_store(1);
    Store &store = *store_owner;
    const Weights weights(8, 4);
    std::uint64_t load = 0;
    const auto refused = [&](auto change) {
        LoadRequest request = weights.request;
        change(request);
        return store.load(request, &load).code();
    };
    CHECK_EQ(refused([](LoadRequest &r) { r.weights_bytes -= 1; }), Code::invalid_argument);
    CHECK_EQ(refused([](LoadRequest &r) { r.weights_bytes = 0; }), Code::invalid_argument);
    CHECK_EQ(refused([](LoadRequest &r) { r.chunk_bytes = 1000; }), Code::invalid_argument);
    CHECK_EQ(refused([](LoadRequest &r) { r.chunk_digests.pop_back(); }), Code::invalid_argument);
    CHECK_EQ(refused([](LoadRequest &r) { r.weights_path += ".missing"; }), Code::not_found);
    LoadStatus status;
    CHECK_EQ(store.status(77, &status).code(), Code::not_found);
    CHECK_EQ(store.release(77).code(), Code::not_found);
}

TEST("store: memory that cannot be had is OUT_OF_MEMORY") {
    test::FaultyEnv env;
    env.memory_error = -ENOMEM;
    sllm::StoreOptions options;
    options.arena = test::small_arena;
    std::unique_ptr<Store> store;
    CHECK_EQ(Store::create(options, env, &store).code(), Code::out_of_memory);
    env.memory_error = 0;
    CHECK_OK(Store::create(options, env, &store));
    env.memory_error = -ENOMEM;
    const Weights weights(8, 4);
    std::uint64_t load = 0;
    CHECK_EQ(store->load(weights.request, &load).code(), Code::out_of_memory);
    CHECK_EQ(store->arena_status().used_bytes, 0u);
}

TEST("store: weights lie in scattered chunks, digests across their borders, and are seen as one range") {
    const auto owner = test::open_store(3);
    const Weights small(4, 4, 1);
    const Weights large(11'000, 700, 2);  // 43 MiB: three chunks of the arena
    std::uint64_t loads[8];
    for (std::uint64_t &load : loads) CHECK_OK(owner->load(small.request, &load));
    for (const std::uint64_t load : loads) wait_until_ended(*owner, load);
    std::uint64_t refused = 0;
    const sllm::Status full = owner->load(large.request, &refused);
    CHECK_EQ(full.code(), Code::out_of_memory);
    CHECK(mentions(full.message(), "need 48 MiB") && mentions(full.message(), "128 MiB of the arena's 128 MiB"));
    for (const int i : {1, 3, 6}) CHECK_OK(owner->release(loads[i]));
    const LoadStatus status = load_and_wait(*owner, large.request);
    CHECK_EQ(status.message, "");
    CHECK(content(status.fd, large.bytes.size()) == large.bytes);
    LoadStatus other;
    CHECK_OK(owner->status(loads[2], &other));
    CHECK(content(other.fd, small.bytes.size()) == small.bytes);
}

TEST("store: a failed load gives its memory back at once, a good one when it is released") {
    const Weights weights(20, 4);
    auto bytes = weights.bytes;
    bytes[5] ^= 1;
    test::write_file(weights.request.weights_path, bytes);
    const auto owner = test::open_store(2);
    CHECK_EQ(load_and_wait(*owner, weights.request).state, static_cast<int>(Code::corrupt));
    for (int i = 0; i < 200 && owner->arena_status().used_bytes > 0; i++) owner->wait(5'000);
    CHECK_EQ(owner->arena_status().used_bytes, 0u);
    test::write_file(weights.request.weights_path, weights.bytes);
    std::uint64_t load = 0;
    CHECK_OK(owner->load(weights.request, &load));
    wait_until_ended(*owner, load);
    CHECK_EQ(owner->arena_status().used_bytes, std::uint64_t{16} << 20);
    CHECK_OK(owner->release(load));
    CHECK_EQ(owner->arena_status().used_bytes, 0u);
}

namespace {

// Holds reads back from the second chunk on until it is opened.
struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
    int arrived = 0;

    void pass() {
        std::unique_lock lock(mutex);
        arrived++;
        changed.notify_all();
        changed.wait(lock, [this] { return open; });
    }
    void wait_for_arrival() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return arrived > 0; });
    }
    void release() {
        const std::lock_guard lock(mutex);
        open = true;
        changed.notify_all();
    }
};

}  // namespace

TEST("store: releasing a load in progress stops it, and readers in flight do no harm") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(40, 4);
        test::FaultyEnv env;
        Gate gate;
        std::atomic<int> reads{0};
        env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
            reads++;
            if (offset > 0) gate.pass();
            return real(bytes);
        };
        const auto store_owner = test::open_store(2, env, test::small_arena, method);
        Store &store = *store_owner;
        std::uint64_t load = 0;
        CHECK_OK(store.load(weights.request, &load));
        LoadStatus status;
        CHECK_OK(store.status(load, &status));
        sllm::HostCopyView view;
        const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
        CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes.size(), &view));
        gate.wait_for_arrival();
        CHECK_OK(store.release(load));
        CHECK_EQ(store.status(load, &status).code(), Code::not_found);
        CHECK_EQ(view.wait_ready([](std::uint64_t, std::uint64_t) {}).code(), Code::closed);
        gate.release();
        // Most of the ten chunks are never asked for.
        CHECK(reads.load() <= 4);
    }
}

TEST("store: destroying it fails loads in progress as CLOSED for those who wait") {
    for (const sllm::ReadMethod method : methods) {
        const Weights weights(40, 4);
        test::FaultyEnv env;
        Gate gate;
        env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
            gate.pass();
            return real(bytes);
        };
        sllm::HostCopyView view;
        {
            const auto store_owner = test::open_store(1, env, test::small_arena, method);
            Store &store = *store_owner;
            std::uint64_t load = 0;
            CHECK_OK(store.load(weights.request, &load));
            LoadStatus status;
            CHECK_OK(store.status(load, &status));
            const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
            CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes.size(), &view));
            gate.wait_for_arrival();
            gate.release();
        }
        // Either it was stopped or its last chunk was already in.
        const Code code = view.wait_ready([](std::uint64_t, std::uint64_t) {}).code();
        CHECK(code == Code::closed || code == Code::ok);
    }
}

TEST("store: bytes become ready in order, and only when they are verified") {
    const Weights weights(64, 4);
    const auto store_owner = test::open_store(4);
    Store &store = *store_owner;
    std::uint64_t load = 0;
    CHECK_OK(store.load(weights.request, &load));
    LoadStatus status;
    CHECK_OK(store.status(load, &status));
    sllm::HostCopyView view;
    const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes.size(), &view));
    sllm::Mapping mapping;
    CHECK_OK(view.map(&mapping));
    std::uint64_t before = 0;
    CHECK_OK(view.wait_ready([&](std::uint64_t begin, std::uint64_t ready) {
        CHECK(begin == before && ready > before && ready % (4 * page) == 0);
        CHECK_EQ(std::memcmp(mapping.data() + before, weights.bytes.data() + before, ready - before), 0);
        before = ready;
    }));
    CHECK_EQ(before, weights.bytes.size());
}

TEST("store: a host copy cannot be written, resized or mapped writable, nor can the weights through it") {
    const Weights weights(8, 4);
    const auto owner = test::open_store(2);
    const LoadStatus status = load_and_wait(*owner, weights.request);
    const std::uint8_t byte = 1;
    CHECK(::pwrite(status.fd, &byte, 1, 0) < 0);
    CHECK(::ftruncate(status.fd, 0) < 0);
    CHECK(::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, status.fd, 0) == MAP_FAILED);
    sllm::HostCopyView view;
    sllm::Mapping mapping;
    const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes.size(), &view));
    CHECK_OK(view.map(&mapping));
    CHECK(::mprotect(mapping.data(), page, PROT_READ | PROT_WRITE) < 0);
}

TEST("store: another process follows a load through /proc and sees every byte") {
    const Weights weights(256, 4);
    test::FaultyEnv env;
    env.on_read = [](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return real(bytes);
    };
    const auto store_owner = test::open_store(2, env);
    Store &store = *store_owner;
    std::uint64_t load = 0;
    CHECK_OK(store.load(weights.request, &load));
    LoadStatus status;
    CHECK_OK(store.status(load, &status));
    const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(status.fd);
    const pid_t child = ::fork();
    if (child == 0) {
        sllm::HostCopyView view;
        sllm::Mapping mapping;
        sllm::Env &real = sllm::Env::posix();
        const bool good = sllm::HostCopyView::open(real, path, weights.bytes.size(), &view).ok() &&
                          view.wait_ready([](std::uint64_t, std::uint64_t) {}).ok() && view.map(&mapping).ok() &&
                          std::memcmp(mapping.data(), weights.bytes.data(), weights.bytes.size()) == 0;
        ::_exit(good ? 0 : 1);
    }
    int result = -1;
    CHECK_EQ(::waitpid(child, &result, 0), child);
    CHECK_EQ(result, 0);
}

TEST("store: a waiter learns that the loading process died") {
    int ends[2];
    CHECK_EQ(::pipe(ends), 0);
    const std::uint64_t bytes = 4 * page;
    const pid_t loader = ::fork();
    if (loader == 0) {
        sllm::Env &env = sllm::Env::posix();
        std::unique_ptr<sllm::Arena> arena;
        sllm::ArenaChunks chunks;
        sllm::HostCopy copy;
        if (!sllm::Arena::create(env, test::small_arena, &arena).ok() || !arena->take(bytes, &chunks).ok()) ::_exit(1);
        if (!sllm::HostCopy::create(env, bytes, {{0}}, *arena, chunks.numbers(), &copy).ok()) ::_exit(1);
        const int fd = copy.fd();
        if (::write(ends[1], &fd, sizeof fd) != sizeof fd) ::_exit(1);
        ::pause();
    }
    int fd = -1;
    CHECK_EQ(::read(ends[0], &fd, sizeof fd), static_cast<ssize_t>(sizeof fd));
    sllm::HostCopyView view;
    const std::string path = "/proc/" + std::to_string(loader) + "/fd/" + std::to_string(fd);
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, bytes, &view));
    CHECK_EQ(::kill(loader, SIGKILL), 0);
    CHECK_EQ(::waitpid(loader, nullptr, 0), loader);
    const sllm::Status status = view.wait_ready([](std::uint64_t, std::uint64_t) {});
    CHECK_EQ(status.code(), Code::io);
    CHECK(mentions(status.message(), "ended before the last byte"));
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST("store: what is no host copy is refused as CORRUPT") {
    const test::TempFolder folder;
    test::write_file(folder / "short", std::vector<std::uint8_t>(page));
    test::write_file(folder / "zeros", std::vector<std::uint8_t>(5 * page));
    sllm::HostCopyView view;
    sllm::Env &env = sllm::Env::posix();
    CHECK_EQ(sllm::HostCopyView::open(env, folder / "short", 4 * page, &view).code(), Code::corrupt);
    CHECK_EQ(sllm::HostCopyView::open(env, folder / "zeros", 4 * page, &view).code(), Code::corrupt);
    CHECK_EQ(sllm::HostCopyView::open(env, folder / "missing", 4 * page, &view).code(), Code::not_found);
}

TEST_MAIN()
