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

#include "core/digest.h"
#include "store/store.h"
#include "test/faulty_env.h"
#include "test/harness.h"
#include "test/temp_folder.h"

namespace {

using sllm::Code;
using sllm::LoadRequest;
using sllm::LoadStatus;
using sllm::Store;

constexpr std::uint64_t page = 4096;

struct Weights {
    test::TempFolder folder;
    std::vector<std::uint8_t> bytes;
    LoadRequest request;

    Weights(std::uint64_t pages, std::uint64_t chunk_pages, std::uint64_t seed = 1) {
        std::mt19937_64 random(seed);
        bytes.resize(pages * page);
        for (std::uint8_t &byte : bytes) byte = static_cast<std::uint8_t>(random());
        request.weights_path = folder / "weights.bin";
        request.weights_bytes = bytes.size();
        request.chunk_bytes = chunk_pages * page;
        for (std::uint64_t at = 0; at < bytes.size(); at += request.chunk_bytes) {
            const std::uint64_t n = std::min<std::uint64_t>(request.chunk_bytes, bytes.size() - at);
            request.chunk_digests.push_back(sllm::xxh3(bytes.data() + at, n));
        }
        test::write_file(request.weights_path, bytes);
    }
};

LoadStatus wait_until_ended(Store &store, std::uint64_t load) {
    LoadStatus status;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(store.status(load, &status));
        if (status.state != 0) return status;
        store.wait(50'000);
    }
    throw test::Failed("the load does not end");
}

LoadStatus load_and_wait(Store &store, const LoadRequest &request) {
    std::uint64_t load = 0;
    CHECK_OK(store.load(request, &load));
    return wait_until_ended(store, load);
}

std::vector<std::uint8_t> content(int fd, std::uint64_t bytes) {
    std::vector<std::uint8_t> found(bytes);
    CHECK_EQ(::pread(fd, found.data(), bytes, 0), static_cast<ssize_t>(bytes));
    return found;
}

bool mentions(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST("store: a host copy holds the file's bytes, whatever its size and chunks") {
    std::mt19937_64 random(test::seed());
    Store store(4);
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
    Store store(3);
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
    const Weights weights(20, 4);
    test::FaultyEnv at_open;
    at_open.direct_open_error = -EINVAL;
    Store first(2, at_open);
    LoadStatus status = load_and_wait(first, weights.request);
    CHECK_EQ(status.state, 1);
    CHECK(!status.direct_io);
    CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);

    test::FaultyEnv at_read;
    at_read.on_read = [](int fd, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        return (::fcntl(fd, F_GETFL) & O_DIRECT) != 0 ? -EINVAL : real(bytes);
    };
    Store second(2, at_read);
    status = load_and_wait(second, weights.request);
    CHECK_EQ(status.state, 1);
    CHECK(!status.direct_io);
    CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
}

TEST("store: short and interrupted reads are continued") {
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
    Store store(2, env);
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.message, "");
    CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
}

TEST("store: a read error fails the load as IO with path, offset and errno") {
    const Weights weights(20, 4);
    test::FaultyEnv env;
    env.on_read = [](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
        return offset == 8 * page ? -EIO : real(bytes);
    };
    Store store(1, env);
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.state, static_cast<int>(Code::io));
    CHECK(mentions(status.message, weights.request.weights_path));
    CHECK(mentions(status.message, std::to_string(8 * page)));
    CHECK(mentions(status.message, sllm::errno_text(EIO)));
}

TEST("store: a file of another size fails the load as CORRUPT") {
    for (const std::uint64_t pages : {19u, 21u}) {
        const Weights weights(20, 4);
        CHECK_EQ(::truncate(weights.request.weights_path.c_str(), static_cast<off_t>(pages * page)), 0);
        Store store(2);
        const LoadStatus status = load_and_wait(store, weights.request);
        CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
        CHECK(mentions(status.message, std::to_string(pages * page)));
    }
}

TEST("store: a file that shrinks while it is read fails the load as CORRUPT") {
    const Weights weights(20, 4);
    test::FaultyEnv env;
    env.on_read = [](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
        return offset >= 12 * page ? 0 : real(bytes);
    };
    Store store(1, env);
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
    CHECK(mentions(status.message, "ends at byte " + std::to_string(12 * page)));
}

TEST("store: a flipped bit on disk fails the load as CORRUPT with offset and both digests") {
    const Weights weights(20, 4);
    auto bytes = weights.bytes;
    bytes[9 * page + 17] ^= 4;
    test::write_file(weights.request.weights_path, bytes);
    Store store(2);
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.state, static_cast<int>(Code::corrupt));
    CHECK(mentions(status.message, "offset " + std::to_string(8 * page)));
    char expected[17];
    std::snprintf(expected, sizeof expected, "%016llx",
                  static_cast<unsigned long long>(weights.request.chunk_digests[2]));
    CHECK(mentions(status.message, expected));
}

TEST("store: a bit flipped on its way is read once more and the load goes on") {
    const Weights weights(20, 4);
    test::FaultyEnv env;
    std::atomic<int> flips{0};
    env.on_read = [&](int, void *out, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
        const ssize_t n = real(bytes);
        if (offset == 4 * page && flips++ == 0) static_cast<std::uint8_t *>(out)[5] ^= 1;
        return n;
    };
    Store store(2, env);
    const LoadStatus status = load_and_wait(store, weights.request);
    CHECK_EQ(status.message, "");
    CHECK_EQ(flips.load(), 2);
    CHECK(content(status.fd, weights.bytes.size()) == weights.bytes);
}

TEST("store: impossible requests are refused at once") {
    Store store(1);
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
    const Weights weights(8, 4);
    test::FaultyEnv env;
    env.memory_error = -ENOMEM;
    Store store(1, env);
    std::uint64_t load = 0;
    CHECK_EQ(store.load(weights.request, &load).code(), Code::out_of_memory);
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
    const Weights weights(40, 4);
    test::FaultyEnv env;
    Gate gate;
    std::atomic<int> reads{0};
    env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t offset, const auto &real) -> ssize_t {
        reads++;
        if (offset > 0) gate.pass();
        return real(bytes);
    };
    Store store(2, env);
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
    CHECK_EQ(view.wait_ready([](std::uint64_t) {}).code(), Code::closed);
    gate.release();
    // Most of the ten chunks are never asked for.
    CHECK(reads.load() <= 4);
}

TEST("store: destroying it fails loads in progress as CLOSED for those who wait") {
    const Weights weights(40, 4);
    test::FaultyEnv env;
    Gate gate;
    env.on_read = [&](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        gate.pass();
        return real(bytes);
    };
    sllm::HostCopyView view;
    {
        Store store(1, env);
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
    const Code code = view.wait_ready([](std::uint64_t) {}).code();
    CHECK(code == Code::closed || code == Code::ok);
}

TEST("store: bytes become ready in order, and only when they are verified") {
    const Weights weights(64, 4);
    Store store(4);
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
    CHECK_OK(view.wait_ready([&](std::uint64_t ready) {
        CHECK(ready > before && ready % (4 * page) == 0);
        CHECK_EQ(std::memcmp(mapping.data() + before, weights.bytes.data() + before, ready - before), 0);
        before = ready;
    }));
    CHECK_EQ(before, weights.bytes.size());
}

TEST("store: a finished host copy cannot be written, resized or mapped writable, and is not mapped by the store") {
    const Weights weights(8, 4);
    Store store(2);
    const LoadStatus status = load_and_wait(store, weights.request);
    const std::uint8_t byte = 1;
    CHECK(::pwrite(status.fd, &byte, 1, 0) < 0);
    CHECK(::ftruncate(status.fd, 0) < 0);
    CHECK(::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, status.fd, 0) == MAP_FAILED);
    // The reader that finished unmaps after it has reported.
    const auto mapped_bytes = [] {
        std::ifstream maps("/proc/self/maps");
        std::uint64_t bytes = 0;
        for (std::string line; std::getline(maps, line);) {
            if (line.find("sllm-host-copy") == std::string::npos) continue;
            char *end = nullptr;
            const std::uint64_t from = std::strtoull(line.c_str(), &end, 16);
            bytes += std::strtoull(end + 1, nullptr, 16) - from;
        }
        return bytes;
    };
    for (int i = 0; i < 200 && mapped_bytes() > page; i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK_EQ(mapped_bytes(), page);
}

TEST("store: another process follows a load through /proc and sees every byte") {
    const Weights weights(256, 4);
    test::FaultyEnv env;
    env.on_read = [](int, void *, std::size_t bytes, std::uint64_t, const auto &real) -> ssize_t {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return real(bytes);
    };
    Store store(2, env);
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
                          view.wait_ready([](std::uint64_t) {}).ok() && view.map(&mapping).ok() &&
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
        sllm::HostCopy copy;
        if (!sllm::HostCopy::create(sllm::Env::posix(), bytes, &copy).ok()) ::_exit(1);
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
    const sllm::Status status = view.wait_ready([](std::uint64_t) {});
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
