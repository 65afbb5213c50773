// Submission and completion queues, and the table of registered memory.
#include "io/ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

namespace sllm {

namespace {

int map_queue(Env &env, int fd, std::size_t bytes, std::uint64_t which, Mapping *out) {
    void *address = nullptr;
    constexpr int protection = PROT_READ | PROT_WRITE;
    const int error = env.map(nullptr, bytes, protection, MAP_SHARED | MAP_POPULATE, fd, which, &address);
    if (error == 0) *out = Mapping(env, address, bytes);
    return error;
}

template <typename T>
T *at(const Mapping &mapping, std::uint32_t offset) {
    return reinterpret_cast<T *>(mapping.data() + offset);
}

}  // namespace

int Ring::create(Env &env, std::uint32_t depth, std::uint32_t buffers, std::unique_ptr<ReadQueue> *out) {
    io_uring_params params{};
    const long fd = ::syscall(SYS_io_uring_setup, depth, &params);
    if (fd < 0) return -errno;
    std::unique_ptr<Ring> ring(new Ring(env, OwnedFd(env, static_cast<int>(fd))));
    if (const int error = ring->map(params); error < 0) return error;
    ring->make_slots(buffers);
    *out = std::move(ring);
    return 0;
}

int Ring::map(const io_uring_params &params) {
    const std::size_t submissions = params.sq_off.array + params.sq_entries * sizeof(std::uint32_t);
    const std::size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    const std::size_t entries = params.sq_entries * sizeof(io_uring_sqe);
    if (const int e = map_queue(env_, fd_.get(), submissions, IORING_OFF_SQ_RING, &submissions_); e < 0) return e;
    if (const int e = map_queue(env_, fd_.get(), completions, IORING_OFF_CQ_RING, &completions_); e < 0) return e;
    if (const int e = map_queue(env_, fd_.get(), entries, IORING_OFF_SQES, &entries_); e < 0) return e;
    tail_ = at<std::uint32_t>(submissions_, params.sq_off.tail);
    mask_ = *at<std::uint32_t>(submissions_, params.sq_off.ring_mask);
    array_ = at<std::uint32_t>(submissions_, params.sq_off.array);
    done_head_ = at<std::uint32_t>(completions_, params.cq_off.head);
    done_tail_ = at<std::uint32_t>(completions_, params.cq_off.tail);
    done_mask_ = *at<std::uint32_t>(completions_, params.cq_off.ring_mask);
    done_ = at<io_uring_cqe>(completions_, params.cq_off.cqes);
    return 0;
}

void Ring::add(const ReadOp &op) {
    const int slot = slot_of(op);
    const std::uint32_t tail = *tail_;
    io_uring_sqe &entry = at<io_uring_sqe>(entries_, 0)[tail & mask_];
    entry = {};
    entry.opcode = slot < 0 ? IORING_OP_READ : IORING_OP_READ_FIXED;
    if (slot >= 0) entry.buf_index = static_cast<std::uint16_t>(slot);
    entry.flags = op.blocking ? IOSQE_ASYNC : 0;
    entry.fd = op.fd;
    entry.off = op.offset;
    entry.addr = reinterpret_cast<std::uint64_t>(op.out);
    entry.len = op.bytes;
    entry.user_data = op.tag;
    array_[tail & mask_] = tail & mask_;
    std::atomic_ref(*tail_).store(tail + 1, std::memory_order_release);
    added_++;
}

void Ring::wait(std::vector<ReadResult> *out) {
    for (;;) {
        const long taken =
            ::syscall(SYS_io_uring_enter, fd_.get(), added_, 1U, IORING_ENTER_GETEVENTS, nullptr, 0UL);
        if (taken > 0) added_ -= static_cast<std::uint32_t>(taken);
        if (take(out)) return;
        // Interrupted, or the kernel is short of memory for a moment. Nothing that was added may be forgotten, and what
        // is in flight writes into memory, so there is no other way out than to go on.
        if (taken < 0 && errno != EINTR) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

bool Ring::take(std::vector<ReadResult> *out) {
    std::uint32_t head = *done_head_;
    const std::uint32_t end = std::atomic_ref(*done_tail_).load(std::memory_order_acquire);
    const bool any = head != end;
    for (; head != end; head++) {
        const io_uring_cqe &done = done_[head & done_mask_];
        out->push_back({done.user_data, done.res});
    }
    std::atomic_ref(*done_head_).store(head, std::memory_order_release);
    return any;
}

void Ring::make_slots(std::uint32_t buffers) {
    // The number of a slot has 16 bits in an entry, and the kernel takes no more than 16,384.
    constexpr std::uint32_t most = 16'384;
    if (buffers == 0) return;
    io_uring_rsrc_register table{};
    table.nr = std::min(buffers, most);
    table.flags = IORING_RSRC_REGISTER_SPARSE;
    if (::syscall(SYS_io_uring_register, fd_.get(), IORING_REGISTER_BUFFERS2, &table, sizeof table) < 0) return;
    slots_.resize(table.nr);
}

int Ring::update_slot(std::uint32_t slot, std::span<std::uint8_t> memory) {
    const iovec vector{memory.data(), memory.size()};
    const std::uint64_t tag = 0;
    io_uring_rsrc_update2 update{};
    update.offset = slot;
    update.data = reinterpret_cast<std::uint64_t>(&vector);
    update.tags = reinterpret_cast<std::uint64_t>(&tag);
    update.nr = 1;
    const long n =
        ::syscall(SYS_io_uring_register, fd_.get(), IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update);
    return n < 0 ? -errno : 0;
}

bool Ring::register_buffer(std::uint32_t slot, std::span<std::uint8_t> memory) {
    const std::lock_guard lock(slots_mutex_);
    if (slot >= slots_.size() || update_slot(slot, memory) < 0) return false;
    slots_[slot] = memory;
    return true;
}

void Ring::forget_buffer(std::uint32_t slot) {
    const std::lock_guard lock(slots_mutex_);
    if (slot >= slots_.size() || slots_[slot].empty()) return;
    update_slot(slot, {});
    slots_[slot] = {};
}

int Ring::slot_of(const ReadOp &op) const {
    const std::lock_guard lock(slots_mutex_);
    if (op.slot >= slots_.size()) return -1;
    const std::span<std::uint8_t> memory = slots_[op.slot];
    const bool inside = op.out >= memory.data() && op.out + op.bytes <= memory.data() + memory.size();
    return inside ? static_cast<int>(op.slot) : -1;
}

}  // namespace sllm
