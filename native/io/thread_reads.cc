// The pool: one blocking read per thread.
#include "io/thread_reads.h"

namespace sllm {

ThreadReads::ThreadReads(Env &env, std::uint32_t threads) : env_(env) {
    threads_.reserve(threads);
    for (std::uint32_t i = 0; i < threads; i++) threads_.emplace_back([this] { read_loop(); });
}

ThreadReads::~ThreadReads() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    added_.notify_all();
    for (std::thread &thread : threads_) thread.join();
}

void ThreadReads::add(const ReadOp &op) {
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(op);
    }
    added_.notify_one();
}

void ThreadReads::wait(std::vector<ReadResult> *out) {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return !results_.empty(); });
    out->insert(out->end(), results_.begin(), results_.end());
    results_.clear();
}

void ThreadReads::read_loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        added_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
        if (stopping_) return;
        const ReadOp op = waiting_.front();
        waiting_.pop_front();
        lock.unlock();
        const ssize_t n = env_.pread(op.fd, op.out, op.bytes, op.offset);
        lock.lock();
        results_.push_back({op.tag, n});
        ended_.notify_one();
    }
}

}  // namespace sllm
