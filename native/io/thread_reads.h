// ReadQueue on a pool of threads: where the system has no io_uring or forbids it.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "io/env.h"
#include "io/read_queue.h"

namespace sllm {

class ThreadReads : public ReadQueue {
public:
    // `threads`: at least 1; as many reads are in flight at once.
    ThreadReads(Env &env, std::uint32_t threads);
    ~ThreadReads() override;
    ThreadReads(const ThreadReads &) = delete;
    ThreadReads &operator=(const ThreadReads &) = delete;

    void add(const ReadOp &op) override;
    void wait(std::vector<ReadResult> *out) override;

private:
    void read_loop();

    Env &env_;
    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable added_;
    std::condition_variable ended_;
    bool stopping_ = false;
    std::deque<ReadOp> waiting_;
    std::vector<ReadResult> results_;
    std::vector<std::thread> threads_;
};

}  // namespace sllm
