// An Env whose reads fail, shorten, flip or wait as a test says.
#pragma once

#include <functional>

#include "io/env.h"

namespace test {

class FaultyEnv : public sllm::Env {
public:
    // Called for each read, whatever the method: instead of a pread, and on the result of an io_uring. `real` does the
    // actual read. Several threads may call at once.
    using Read = std::function<ssize_t(int fd, void *out, std::size_t bytes, std::uint64_t offset,
                                       const std::function<ssize_t(std::size_t)> &real)>;
    Read on_read;
    // Result of making an io_uring; 0 makes it.
    int ring_error = 0;
    // Result of opening with O_DIRECT; 0 opens.
    int direct_open_error = 0;
    // Result of creating shared memory; 0 creates.
    int memory_error = 0;
    // Whether the system has huge pages in reserve: any number of them, played by small ones.
    bool reserve = false;
    // Called before each madvise. Several threads may call at once.
    std::function<void()> before_advise;
    // Results of every madvise, and of giving memory back; 0 does it.
    int advise_error = 0;
    int punch_error = 0;

    // Whether all files count as being in the page cache. Those of a test always are, having just been written.
    bool cached = false;

    int open(const char *path, int flags) override;
    ssize_t pread(int fd, void *out, std::size_t bytes, std::uint64_t offset) override;
    int make_read_queue(sllm::ReadMethod method, std::uint32_t depth, std::uint32_t buffers,
                        std::unique_ptr<sllm::ReadQueue> *out) override;
    std::int64_t cached_bytes(int fd, std::uint64_t offset, std::uint64_t bytes) override;
    int create_memory(const char *name, std::uint64_t bytes) override;
    int create_reserved_memory(const char *name, std::uint64_t bytes) override;
    int advise(void *address, std::size_t bytes, int advice) override;
    int punch_hole(int fd, std::uint64_t offset, std::uint64_t bytes) override;
};

}  // namespace test
