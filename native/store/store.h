// Store: reads checkpoints from disk into host copies with a pool of reader threads. Loads are served in the order they
// came, each chunk by whichever reader is free.
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
    explicit Store(std::uint32_t reader_threads, Env &env = Env::posix());
    // Fails all loads as CLOSED, joins the readers, closes all host copies.
    ~Store();
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;

    // All [any].
    Status load(LoadRequest request, std::uint64_t *number);
    Status status(std::uint64_t number, LoadStatus *out);
    // Waits until progress was made since the last wait returned, or for timeout_us. [blocks]
    void wait(std::uint64_t timeout_us);
    Status release(std::uint64_t number);

private:
    void read_loop();
    void note_progress();

    Env &env_;
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
