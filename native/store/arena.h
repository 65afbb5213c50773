// The arena: all host memory for weights, one anonymous shared memory file cut into chunks of 16 MiB. It is sparse: a
// chunk has memory from its first use, or ahead of it, when a background thread has faulted it in: first touch costs
// most of a second per GB on virtual machines. Free chunks beyond the wanted number give their memory back.
//
// Other processes open the file read-only through /proc; its mode lets no one else open it for writing. It cannot be
// sealed against writing, because the same seal would forbid to give memory back.
//
// A chunk that was given back is handed out again. Whoever computes on it in another process must have ended, or
// unmapped it, before: the arena cannot see them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/status.h"
#include "io/owned.h"
#include "store/chunk_allocator.h"

namespace sllm {

struct ArenaOptions {
    std::uint64_t arena_bytes = 0;     // the most it may hold, rounded up to whole chunks; 0: the machine's memory
    std::uint64_t prefault_bytes = 0;  // kept faulted in, rounded down to whole chunks
};

struct ArenaStatus {
    std::uint64_t arena_bytes = 0;
    std::uint64_t used_bytes = 0;     // in chunks of host copies
    std::uint64_t faulted_bytes = 0;  // with memory behind them, used ones included
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

class Arena {
public:
    // INVALID_ARGUMENT, OUT_OF_MEMORY, IO. Returns at once; faulting goes on in the background.
    static Status create(Env &env, const ArenaOptions &options, std::unique_ptr<Arena> *out);
    // Stops the background thread; waits for one chunk's work at most. Mappings of other processes stay.
    ~Arena();
    Arena(const Arena &) = delete;
    Arena &operator=(const Arena &) = delete;

    int fd() const { return fd_.get(); }
    // Writable memory of a chunk. Mapped as long as the arena lives. [any]
    std::uint8_t *at(std::uint32_t chunk) const;

    // Takes chunks for `bytes`, all or none. OUT_OF_MEMORY names the arena's size and what is in use. [any]
    Status take(std::uint64_t bytes, ArenaChunks *out);
    ArenaStatus status();  // [any]

private:
    friend class ArenaChunks;
    Arena(Env &env, std::uint32_t chunks, std::uint32_t keep_faulted);
    Status open();
    void give_back(const std::vector<std::uint32_t> &chunks);
    void work_loop();
    bool perform(ChunkAllocator::Work work);

    Env &env_;
    OwnedFd fd_;
    Mapping memory_;
    const std::uint64_t prefault_bytes_;
    const double created_ms_;

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable changed_;
    ChunkAllocator chunks_;
    bool stopping_ = false;
    std::uint32_t waiting_ = 0;  // takers that need the very chunk in work: no other is begun before they have looked
    double prefaulted_ms_ = -1;  // when the first pre-fault was done; negative before
    std::thread worker_;
};

}  // namespace sllm
