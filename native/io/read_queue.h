// ReadQueue: many reads of files in flight at once, submitted and awaited by one thread. Made by Env, so that tests can
// put faults between the system and its user.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sllm {

// How reads are kept in flight: by one io_uring, or by a pool of threads that each wait for one read.
enum class ReadMethod : std::uint32_t { ring = 0, threads = 1 };

struct ReadOp {
    int fd = -1;
    std::uint8_t *out = nullptr;
    std::uint32_t bytes = 0;
    std::uint64_t offset = 0;
    std::uint64_t tag = 0;  // comes back with the result
    // Slot of the registered memory that `out` lies in; beyond all slots where it lies in none.
    std::uint32_t slot = UINT32_MAX;
    // The read may sleep or copy in the submitting thread, as buffered ones do; it is handed to another.
    bool blocking = false;
};

struct ReadResult {
    std::uint64_t tag = 0;
    std::int64_t result = 0;  // bytes read, or a negative errno
};

// Not thread-safe, but for register_buffer and forget_buffer.
class ReadQueue {
public:
    // No read may be in flight: the system would go on writing into memory that its owner has given away.
    virtual ~ReadQueue() = default;

    // Queues a read; it begins with the next wait() at the latest. At most `depth` of them before their results came.
    virtual void add(const ReadOp &op) = 0;
    // Begins what was added, waits until a read ends, and appends the results that are there. At least one read must
    // be in flight or added. [blocks]
    virtual void wait(std::vector<ReadResult> *out) = 0;

    // Keeps memory ready for the system: reads into it need not look its pages up. False where that is not possible;
    // reads work all the same. Slots are numbers below `buffers`. [any]
    virtual bool register_buffer(std::uint32_t, std::span<std::uint8_t>) { return false; }
    // Ends it; the memory may be given back afterwards. [any]
    virtual void forget_buffer(std::uint32_t) {}
};

}  // namespace sllm
