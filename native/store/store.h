// Store: reads checkpoints from disk into chunks of its arena with a pool of reader threads. Loads are served in the
// order they came, each chunk by whichever reader is free.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/status.h"
#include "store/load.h"

namespace sllm {

class Store {
public:
    // INVALID_ARGUMENT, OUT_OF_MEMORY, IO.
    static Status create(std::uint32_t reader_threads, const ArenaOptions &arena, Env &env,
                         std::unique_ptr<Store> *out);
    // Fails all loads as CLOSED, joins the threads, closes all host copies and the arena.
    ~Store();
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;

    // All [any]. A released copy's chunks are used for other weights: no engine may map it any more.
    Status load(LoadRequest request, std::uint64_t *number);
    Status status(std::uint64_t number, LoadStatus *out);
    // Waits until progress was made since the last wait returned, or for timeout_us. [blocks]
    void wait(std::uint64_t timeout_us);
    Status release(std::uint64_t number);
    ArenaStatus arena_status() { return arena_->status(); }

private:
    Store(std::uint32_t reader_threads, std::unique_ptr<Arena> arena, Env &env);
    void read_loop();
    void note_progress();

    Env &env_;
    const std::unique_ptr<Arena> arena_;
    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable work_;
    std::condition_variable progress_;
    bool stopping_ = false;
    std::uint64_t last_number_ = 0;
    std::uint64_t progress_count_ = 0;
    std::uint64_t progress_seen_ = 0;
    std::unordered_map<std::uint64_t, std::shared_ptr<Load>> loads_;
    std::deque<std::shared_ptr<Load>> queue_;  // loads with chunks to hand out, oldest first
    std::vector<std::thread> readers_;
};

}  // namespace sllm
