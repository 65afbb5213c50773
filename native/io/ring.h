// ReadQueue on one io_uring, by the system calls themselves.
#pragma once

#include <linux/io_uring.h>

#include <memory>
#include <mutex>

#include "io/owned.h"
#include "io/read_queue.h"

namespace sllm {

class Ring : public ReadQueue {
public:
    // `depth`: the most reads in flight. `buffers`: slots for registered memory, 0 for none. Returns a negative errno:
    // -ENOSYS and -EPERM where the system has no io_uring or forbids it.
    static int create(Env &env, std::uint32_t depth, std::uint32_t buffers, std::unique_ptr<ReadQueue> *out);

    void add(const ReadOp &op) override;
    void wait(std::vector<ReadResult> *out) override;
    bool register_buffer(std::uint32_t slot, std::span<std::uint8_t> memory) override;
    void forget_buffer(std::uint32_t slot) override;

private:
    Ring(Env &env, OwnedFd fd) : env_(env), fd_(std::move(fd)) {}
    int map(const io_uring_params &params);
    // Offers a table of empty slots; without one nothing is registered.
    void make_slots(std::uint32_t buffers);
    int update_slot(std::uint32_t slot, std::span<std::uint8_t> memory);
    // The read's slot if its memory is registered, or negative.
    int slot_of(const ReadOp &op) const;
    bool take(std::vector<ReadResult> *out);

    Env &env_;
    OwnedFd fd_;
    Mapping submissions_;
    Mapping completions_;
    Mapping entries_;
    // Words shared with the kernel.
    std::uint32_t *tail_ = nullptr;
    std::uint32_t *array_ = nullptr;
    std::uint32_t mask_ = 0;
    std::uint32_t *done_head_ = nullptr;
    std::uint32_t *done_tail_ = nullptr;
    std::uint32_t done_mask_ = 0;
    io_uring_cqe *done_ = nullptr;
    std::uint32_t added_ = 0;  // entries the kernel has not taken yet

    mutable std::mutex slots_mutex_;
    std::vector<std::span<std::uint8_t>> slots_;  // empty: not registered. Guarded by slots_mutex_
};

}  // namespace sllm
