// A store for tests: throws when it cannot be made.
#pragma once

#include <memory>
#include <stdexcept>

#include "store/store.h"

namespace test {

// 128 MiB in 8 chunks of which none is kept faulted.
inline constexpr sllm::ArenaOptions small_arena{std::uint64_t{128} << 20, 0};

inline std::unique_ptr<sllm::Store> open_store(std::uint32_t reader_threads, sllm::Env &env = sllm::Env::posix(),
                                               const sllm::ArenaOptions &arena = small_arena) {
    std::unique_ptr<sllm::Store> store;
    if (const sllm::Status s = sllm::Store::create(reader_threads, arena, env, &store); !s.ok()) {
        throw std::runtime_error("store: " + s.message());
    }
    return store;
}

}  // namespace test
