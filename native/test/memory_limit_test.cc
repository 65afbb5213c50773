// Every case runs in a process of its own under CTest: a limit stays.
#include "io/memory_limit.h"

#include <sys/mman.h>

#include "test/harness.h"

namespace {

constexpr std::uint64_t mebibyte = 1 << 20;

// Whether so much can be mapped, privately or shared; it is unmapped again.
bool can_map(std::uint64_t bytes, int kind) {
    void *memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    ::munmap(memory, bytes);
    return true;
}

}  // namespace

TEST("memory limit: growth within it is given, growth beyond it refused, shared memory does not count") {
    CHECK(can_map(1024 * mebibyte, MAP_PRIVATE));
    CHECK_OK(sllm::limit_memory(sllm::Env::posix(), 512 * mebibyte));
    CHECK(can_map(256 * mebibyte, MAP_PRIVATE));
    CHECK(!can_map(1024 * mebibyte, MAP_PRIVATE));
    CHECK(can_map(1024 * mebibyte, MAP_SHARED));
}

TEST("memory limit: a later one replaces it, a boundless one lifts it") {
    CHECK_OK(sllm::limit_memory(sllm::Env::posix(), 64 * mebibyte));
    CHECK(!can_map(256 * mebibyte, MAP_PRIVATE));
    CHECK_OK(sllm::limit_memory(sllm::Env::posix(), 512 * mebibyte));
    CHECK(can_map(256 * mebibyte, MAP_PRIVATE));
    CHECK_OK(sllm::limit_memory(sllm::Env::posix(), UINT64_MAX));
    CHECK(can_map(4096 * mebibyte, MAP_PRIVATE));
}

TEST_MAIN()
