// Faults on demand.
#include "test/faulty_env.h"

#include <fcntl.h>

namespace test {

int FaultyEnv::open(const char *path, int flags) {
    return (flags & O_DIRECT) != 0 && direct_open_error != 0 ? direct_open_error : Env::open(path, flags);
}

ssize_t FaultyEnv::pread(int fd, void *out, std::size_t bytes, std::uint64_t offset) {
    if (!on_read) return Env::pread(fd, out, bytes, offset);
    return on_read(fd, out, bytes, offset, [&](std::size_t n) { return Env::pread(fd, out, n, offset); });
}

std::int64_t FaultyEnv::cached_bytes(int, std::uint64_t, std::uint64_t bytes) {
    return cached ? static_cast<std::int64_t>(bytes) : 0;
}

int FaultyEnv::create_memory(const char *name, std::uint64_t bytes) {
    return memory_error != 0 ? memory_error : Env::create_memory(name, bytes);
}

int FaultyEnv::advise(void *address, std::size_t bytes, int advice) {
    return advise_error != 0 ? advise_error : Env::advise(address, bytes, advice);
}

int FaultyEnv::punch_hole(int fd, std::uint64_t offset, std::uint64_t bytes) {
    return punch_error != 0 ? punch_error : Env::punch_hole(fd, offset, bytes);
}

}  // namespace test
