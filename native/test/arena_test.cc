// The arena: who owns which chunk, and which chunks have memory.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>

#include "store/arena.h"
#include "test/faulty_env.h"
#include "test/harness.h"

namespace {

using sllm::Arena;
using sllm::ArenaChunks;
using sllm::ChunkAllocator;
using sllm::Code;
using Task = ChunkAllocator::Task;
using Outcome = ChunkAllocator::Outcome;

constexpr std::uint64_t chunk = std::uint64_t{16} << 20;

// Without huge pages in reserve, whatever this machine has.
test::FaultyEnv plain;

std::unique_ptr<Arena> open_arena(std::uint64_t chunks, std::uint64_t keep, sllm::Env &env = plain) {
    std::unique_ptr<Arena> arena;
    CHECK_OK(Arena::create(env, {chunks * chunk, keep * chunk}, &arena));
    return arena;
}

// Memory behind the arena, as the kernel counts it.
std::uint64_t resident_chunks(const Arena &arena) {
    struct stat facts {};
    CHECK_EQ(::fstat(arena.fd(), &facts), 0);
    return static_cast<std::uint64_t>(facts.st_blocks) * 512 / chunk;
}

void wait_until(const std::function<bool()> &condition) {
    for (int i = 0; i < 2000 && !condition(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK(condition());
}

// What an allocator should be: which chunks are out, and which are being worked on.
struct Shadow {
    ChunkAllocator chunks;
    std::map<int, std::vector<std::uint32_t>> owned;
    std::vector<ChunkAllocator::Work> working;
    int next_owner = 0;

    std::size_t out() const {
        std::size_t n = 0;
        for (const auto &[owner, numbers] : owned) n += numbers.size();
        return n;
    }
    void check() const {
        std::set<std::uint32_t> seen;
        for (const auto &[owner, numbers] : owned) seen.insert(numbers.begin(), numbers.end());
        for (const auto &work : working) seen.insert(work.chunk);
        CHECK_EQ(seen.size(), out() + working.size());
        CHECK(seen.empty() || *seen.rbegin() < chunks.size());
        CHECK_EQ(chunks.used(), out());
        CHECK_EQ(chunks.in_work(), working.size());
        CHECK_EQ(chunks.free(), chunks.size() - out() - working.size());
    }
    void take(std::uint32_t n) {
        std::vector<std::uint32_t> taken;
        std::uint32_t warm = chunks.faulted();
        for (const auto &[owner, numbers] : owned) warm -= with_memory(numbers);
        const bool fits = n <= chunks.free();
        CHECK_EQ(chunks.take(n, &taken), fits);
        if (!fits) return;
        CHECK_EQ(taken.size(), n);
        CHECK(std::is_sorted(taken.begin(), taken.end()));
        // Chunks with memory are used up before any other is touched.
        CHECK_EQ(with_memory(taken), std::min(n, warm));
        owned[next_owner++] = taken;
    }
    std::uint32_t with_memory(const std::vector<std::uint32_t> &numbers) const {
        return static_cast<std::uint32_t>(
            std::count_if(numbers.begin(), numbers.end(), [this](std::uint32_t i) { return chunks.has_memory(i); }));
    }
    void touch(std::size_t which) {
        const auto at = std::next(owned.begin(), static_cast<std::ptrdiff_t>(which % owned.size()));
        for (const std::uint32_t number : at->second) chunks.got_memory(number);
        CHECK_EQ(with_memory(at->second), at->second.size());
    }
    void give_back(std::size_t which) {
        const auto at = std::next(owned.begin(), static_cast<std::ptrdiff_t>(which % owned.size()));
        chunks.give_back(at->second);
        owned.erase(at);
    }
    bool begin_work() {
        const auto work = chunks.next_work();
        if (work.task != Task::none) working.push_back(work);
        return work.task != Task::none;
    }
    void end_work(std::size_t which, Outcome outcome) {
        const auto at = working.begin() + static_cast<std::ptrdiff_t>(which % working.size());
        chunks.finish(*at, outcome);
        working.erase(at);
    }
};

}  // namespace

TEST("arena: whatever the order of events, no chunk has two owners and none is lost") {
    std::mt19937_64 random(test::seed());
    for (int round = 0; round < 60; round++) {
        const auto size = static_cast<std::uint32_t>(1 + random() % 40);
        const auto keep = static_cast<std::uint32_t>(random() % (size + 2));
        Shadow shadow{ChunkAllocator(size, keep), {}, {}, 0};
        for (int step = 0; step < 300; step++) {
            switch (random() % 5) {
                case 0: shadow.take(static_cast<std::uint32_t>(random() % (size + 2))); break;
                case 1: if (!shadow.owned.empty()) shadow.give_back(random()); break;
                case 2: shadow.begin_work(); break;
                case 3: if (!shadow.owned.empty()) shadow.touch(random()); break;
                default: if (!shadow.working.empty()) {
                    shadow.end_work(random(), random() % 3 == 0 ? Outcome::put_off : Outcome::done);
                }
            }
            shadow.check();
        }
        while (!shadow.working.empty()) shadow.end_work(0, Outcome::done);
        while (!shadow.owned.empty()) shadow.give_back(0);
        while (shadow.begin_work()) shadow.end_work(0, Outcome::done);
        CHECK_EQ(shadow.chunks.free(), size);
        CHECK_EQ(shadow.chunks.faulted(), std::min(keep, size));
    }
}

TEST("arena: work that fails is given up, and no chunk is lost by it") {
    ChunkAllocator chunks(4, 3);
    chunks.finish(chunks.next_work(), Outcome::done);
    chunks.finish(chunks.next_work(), Outcome::failed);
    CHECK(chunks.next_work().task == Task::none);
    CHECK_EQ(chunks.faulted(), 1u);
    std::vector<std::uint32_t> taken;
    CHECK(chunks.take(4, &taken));
    for (const std::uint32_t number : taken) chunks.got_memory(number);
    chunks.give_back(taken);
    const auto punch = chunks.next_work();
    CHECK(punch.task == Task::punch);
    chunks.finish(punch, Outcome::failed);
    CHECK(chunks.next_work().task == Task::none);
    CHECK_EQ(chunks.free(), 4u);
}

TEST("arena: a chunk that is given back twice, or was never taken, is a defect") {
    ChunkAllocator chunks(4, 0);
    std::vector<std::uint32_t> taken;
    CHECK(chunks.take(2, &taken));
    chunks.give_back(taken);
    for (const std::uint32_t bad : {taken[0], 3u, 4u}) {
        bool thrown = false;
        try {
            chunks.give_back(std::vector<std::uint32_t>{bad});
        } catch (const std::logic_error &) {
            thrown = true;
        }
        CHECK(thrown);
    }
}

TEST("arena: chunks come in the shortest run that holds them, so that mappings stay few") {
    ChunkAllocator chunks(10, 10);
    while (true) {
        const auto work = chunks.next_work();
        if (work.task == Task::none) break;
        chunks.finish(work, Outcome::done);
    }
    std::vector<std::uint32_t> all;
    CHECK(chunks.take(10, &all));
    chunks.give_back(std::vector<std::uint32_t>{0, 1, 2, 3, 6, 7, 9});
    std::vector<std::uint32_t> taken;
    CHECK(chunks.take(2, &taken));
    CHECK(taken == (std::vector<std::uint32_t>{6, 7}));
    CHECK(chunks.take(5, &taken));
    CHECK(taken == (std::vector<std::uint32_t>{0, 1, 2, 3, 9}));
}

TEST("arena: memory is faulted in ahead in the background, and given back beyond what is kept") {
    const auto arena = open_arena(8, 2);
    wait_until([&] { return !arena->status().prefaulting; });
    CHECK_EQ(arena->status().faulted_bytes, 2 * chunk);
    CHECK_EQ(resident_chunks(*arena), 2u);
    ArenaChunks chunks;
    CHECK_OK(arena->take(5 * chunk - 1, &chunks));
    CHECK_EQ(chunks.numbers().size(), 5u);
    for (const std::uint32_t number : chunks.numbers()) {
        if (!arena->has_memory(number)) arena->fault_in(number);
        CHECK(arena->has_memory(number));
        std::memset(arena->at(number), 7, chunk);
    }
    CHECK_EQ(resident_chunks(*arena), 5u);
    CHECK_EQ(arena->status().used_bytes, 5 * chunk);
    chunks.reset();
    CHECK_EQ(arena->status().used_bytes, 0u);
    wait_until([&] { return resident_chunks(*arena) == 2; });
}

TEST("arena: chunks can be taken at any moment of the background work, down to the last one") {
    std::mt19937_64 random(test::seed());
    for (int round = 0; round < 10; round++) {
        const auto arena = open_arena(4, random() % 5);
        for (int i = 0; i < 4; i++) {
            ArenaChunks all;
            CHECK_OK(arena->take(4 * chunk, &all));
            *arena->at(all.numbers()[random() % 4]) = 1;
        }
    }
}

TEST("arena: too many chunks are OUT_OF_MEMORY with the numbers and the setting, and nothing is taken") {
    const auto arena = open_arena(4, 0);
    ArenaChunks first;
    ArenaChunks second;
    CHECK_OK(arena->take(chunk, &first));
    const sllm::Status status = arena->take(4 * chunk, &second);
    CHECK_EQ(status.code(), Code::out_of_memory);
    for (const char *part : {"need 64 MiB", "16 MiB of the arena's 64 MiB", "memory_bytes"}) {
        CHECK(status.message().find(part) != std::string::npos);
    }
    CHECK_EQ(arena->status().used_bytes, chunk);
    CHECK_OK(arena->take(3 * chunk, &second));
}

TEST("arena: the system's huge pages are taken when they hold the arena, and all of them are kept") {
    test::FaultyEnv env;
    env.reserve = true;
    const auto arena = open_arena(4, 1, env);
    wait_until([&] { return !arena->status().prefaulting; });
    CHECK_EQ(arena->status().prefault_bytes, 4 * chunk);
    CHECK_EQ(arena->status().huge_bytes, 4 * chunk);
    ArenaChunks chunks;
    CHECK_OK(arena->take(4 * chunk, &chunks));
    chunks.reset();
    // Chunks that stay are taken with their memory at any time, so nothing waits for the background thread here.
    CHECK_OK(arena->take(4 * chunk, &chunks));
    for (const std::uint32_t number : chunks.numbers()) CHECK(arena->has_memory(number));
    CHECK_EQ(resident_chunks(*arena), 4u);
}

TEST("arena: without huge pages by configuration the system's reserve is left alone") {
    test::FaultyEnv env;
    env.reserve = true;
    std::unique_ptr<Arena> arena;
    CHECK_OK(Arena::create(env, {4 * chunk, chunk, false}, &arena));
    wait_until([&] { return !arena->status().prefaulting; });
    CHECK_EQ(arena->status().prefault_bytes, chunk);
    CHECK_EQ(arena->status().huge_bytes, 0u);
}

TEST("arena: kernels that can neither fault in ahead nor punch holes serve all the same") {
    test::FaultyEnv env;
    env.advise_error = -EINVAL;
    env.punch_error = -EOPNOTSUPP;
    const auto arena = open_arena(3, 2, env);
    wait_until([&] { return !arena->status().prefaulting; });
    CHECK_EQ(arena->status().faulted_bytes, 0u);
    for (int i = 0; i < 3; i++) {
        ArenaChunks chunks;
        CHECK_OK(arena->take(3 * chunk, &chunks));
        arena->fault_in(chunks.numbers()[2]);
        *arena->at(chunks.numbers()[2]) = 1;
    }
    CHECK_EQ(arena->status().used_bytes, 0u);
}

TEST_MAIN()
