// The arena: all host memory for weights, one anonymous shared memory file cut into chunks of 16 MiB. It is sparse: a
// chunk has memory from its first use, or ahead of it, when a background thread has faulted it in: first touch costs
// seconds per GB on virtual machines. Free chunks beyond the wanted number give their memory back. Memory comes in huge
// pages where the system can: the disk then writes in larger requests, and an engine fills its page tables at once.
// They are those that the administrator reserved (vm.nr_hugepages) when they hold the whole arena, which then keeps
// them all, otherwise made on demand.
//
// Other processes open the file read-only through /proc; its mode lets no one else open it for writing. It cannot be
// sealed against writing, because the same seal would forbid to give memory back.
//
// A chunk that was given back is handed out again. Whoever computes on it in another process must have ended, or
// unmapped it, before: the arena cannot see them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/status.h"
#include "io/owned.h"
#include "store/chunk_allocator.h"

namespace sllm {

struct ArenaOptions {
    std::uint64_t arena_bytes = 0;     // the most it may hold, rounded up to whole chunks; 0: the machine's memory
    std::uint64_t prefault_bytes = 0;  // kept faulted in, rounded down to whole chunks
    bool huge_pages = true;            // where the system has them
};

struct ArenaStatus {
    std::uint64_t arena_bytes = 0;
    std::uint64_t used_bytes = 0;     // in chunks of host copies
    std::uint64_t faulted_bytes = 0;  // with memory behind them, used ones included
    std::uint64_t huge_bytes = 0;     // of faulted_bytes, in huge pages
    std::uint64_t prefault_bytes = 0;
    double prefault_ms = 0;           // that the first pre-fault took; so far, while it goes on
    bool prefaulting = false;
};

class Arena;

// Chunks of an arena, owned: given back exactly once. The arena must outlive them.
class ArenaChunks {
public:
    ArenaChunks() = default;
    ArenaChunks(Arena &arena, std::vector<std::uint32_t> chunks) : arena_(&arena), chunks_(std::move(chunks)) {}
    ArenaChunks(ArenaChunks &&other) noexcept;
    ArenaChunks &operator=(ArenaChunks &&other) noexcept;
    ~ArenaChunks() { reset(); }

    const std::vector<std::uint32_t> &numbers() const { return chunks_; }
    void reset();

private:
    Arena *arena_ = nullptr;
    std::vector<std::uint32_t> chunks_;
};

// Keeps the background thread of an arena from faulting in while it exists: loads have the memory bus and the processor
// for themselves. The arena must outlive it.
class PrefaultPause {
public:
    PrefaultPause() = default;
    explicit PrefaultPause(Arena &arena);
    PrefaultPause(PrefaultPause &&other) noexcept : arena_(std::exchange(other.arena_, nullptr)) {}
    PrefaultPause &operator=(PrefaultPause &&other) noexcept;
    ~PrefaultPause() { reset(); }

private:
    void reset();
    Arena *arena_ = nullptr;
};

class Arena {
public:
    // INVALID_ARGUMENT, OUT_OF_MEMORY, IO. Returns at once; faulting goes on in the background.
    static Status create(Env &env, const ArenaOptions &options, std::unique_ptr<Arena> *out);
    // Stops the background thread; waits for one chunk's work at most. Mappings of other processes stay.
    ~Arena();
    Arena(const Arena &) = delete;
    Arena &operator=(const Arena &) = delete;

    int fd() const { return fd_.get(); }
    std::uint32_t chunks() const { return chunk_count_; }
    // `forget` is called, from the background thread, before a chunk's memory is taken away. An empty one ends that: it
    // is not called any more once this returns.
    void before_punch(std::function<void(std::uint32_t chunk)> forget);
    // Writable memory of a chunk. Mapped as long as the arena lives. [any]
    std::uint8_t *at(std::uint32_t chunk) const;

    // Takes chunks for `bytes`, all or none. OUT_OF_MEMORY names the arena's size and what is in use. [any]
    Status take(std::uint64_t bytes, ArenaChunks *out);
    // Whether a taken chunk has memory behind it. [any]
    bool has_memory(std::uint32_t chunk);
    // Whether all of a chunk's memory is in huge pages. [any]
    bool is_huge(std::uint32_t chunk);
    // Gives a taken chunk its memory. Without it the first touch does, in small pages. [any] [blocks]
    void fault_in(std::uint32_t chunk);
    ArenaStatus status();  // [any]

private:
    friend class ArenaChunks;
    friend class PrefaultPause;
    enum class Faulted { failed, put_off, small_pages, huge_pages };
    Arena(Env &env, std::uint32_t chunks, std::uint32_t keep_faulted, bool huge_pages);
    Status open();
    // Makes the file the arena's memory, or lets go of it.
    Status map_file(int fd);
    void give_back(const std::vector<std::uint32_t> &chunks);
    void work_loop();
    ChunkAllocator::Outcome perform(ChunkAllocator::Work work);
    // Faults a chunk in; asks `go_on` between its huge pages.
    Faulted populate(std::uint32_t chunk, const std::function<bool()> &go_on);
    bool populate_huge(std::uint8_t *memory);
    void note(std::uint32_t chunk, Faulted outcome);

    Env &env_;
    OwnedFd fd_;
    Mapping memory_;
    const std::uint32_t chunk_count_;
    std::uint64_t prefault_bytes_;
    const double created_ms_;
    bool reserved_ = false;         // all of it lies in huge pages that the system kept in reserve
    std::atomic<bool> huge_pages_;  // whether to make huge pages; false as soon as the system has said that it cannot

    std::mutex punch_mutex_;  // held while before_punch_ runs; taken before any other
    std::function<void(std::uint32_t chunk)> before_punch_;

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable changed_;
    ChunkAllocator chunks_;
    std::vector<bool> huge_;  // chunks whose memory is in huge pages
    bool stopping_ = false;
    std::uint32_t waiting_ = 0;  // takers that need the very chunk in work: no other is begun before they have looked
    std::uint32_t pauses_ = 0;   // loads in progress: memory is not faulted in meanwhile
    double prefaulted_ms_ = -1;  // when the first pre-fault was done; negative before
    std::thread worker_;
};

}  // namespace sllm
