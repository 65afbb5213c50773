// A store for tests: throws when it cannot be made.
#pragma once

#include <memory>
#include <stdexcept>

#include "store/store.h"

namespace test {

// 128 MiB in 8 chunks of which none is kept faulted.
inline constexpr sllm::ArenaOptions small_arena{std::uint64_t{128} << 20, 0};

inline std::unique_ptr<sllm::Store> open_store(const sllm::StoreOptions &options,
                                               sllm::Env &env = sllm::Env::posix()) {
    std::unique_ptr<sllm::Store> store;
    if (const sllm::Status s = sllm::Store::create(options, env, &store); !s.ok()) {
        throw std::runtime_error("store: " + s.message());
    }
    return store;
}

// `reads` of up to 64 KiB in flight: a chunk of a small test is one read.
inline std::unique_ptr<sllm::Store> open_store(std::uint32_t reads, sllm::Env &env = sllm::Env::posix(),
                                               const sllm::ArenaOptions &arena = small_arena,
                                               sllm::ReadMethod method = sllm::ReadMethod::ring) {
    constexpr std::uint32_t block = 65'536;
    sllm::StoreOptions options;
    options.arena = arena;
    options.reads = {method, true, block, reads * block};
    options.workers = 2;
    return open_store(options, env);
}

}  // namespace test
