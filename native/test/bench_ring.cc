// The smallest ring that reads: one thread submits and reaps, entries are numbered by the piece they read.
#include "test/bench_ring.h"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace bench {

namespace {

[[noreturn]] void fail(const char *what, int error) {
    throw std::system_error(error, std::generic_category(), what);
}

class Region {
  public:
    Region(int fd, std::size_t bytes, off_t what) : bytes_(bytes) {
        at_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
        if (at_ == MAP_FAILED) fail("map a ring", errno);
    }
    ~Region() { ::munmap(at_, bytes_); }
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;

    template <typename T>
    T *at(std::uint32_t offset) const {
        return reinterpret_cast<T *>(static_cast<std::uint8_t *>(at_) + offset);
    }

  private:
    void *at_;
    std::size_t bytes_;
};

struct RingFd {
    explicit RingFd(int number) : fd(number) {
        if (fd < 0) fail("set up io_uring", errno);
    }
    ~RingFd() { ::close(fd); }
    RingFd(const RingFd &) = delete;
    RingFd &operator=(const RingFd &) = delete;
    int fd;
};

class Ring {
  public:
    Ring(unsigned depth, io_uring_params params = {})
        : ring_(static_cast<int>(::syscall(SYS_io_uring_setup, depth, &params))),
          queue_(ring_.fd, params.sq_off.array + params.sq_entries * sizeof(std::uint32_t), IORING_OFF_SQ_RING),
          done_(ring_.fd, params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING),
          entries_(ring_.fd, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES),
          tail_(queue_.at<std::uint32_t>(params.sq_off.tail)),
          mask_(*queue_.at<std::uint32_t>(params.sq_off.ring_mask)),
          array_(queue_.at<std::uint32_t>(params.sq_off.array)),
          done_head_(done_.at<std::uint32_t>(params.cq_off.head)),
          done_tail_(done_.at<std::uint32_t>(params.cq_off.tail)),
          done_mask_(*done_.at<std::uint32_t>(params.cq_off.ring_mask)),
          completions_(done_.at<io_uring_cqe>(params.cq_off.cqes)) {}

    void add(int fd, const Piece &rest, std::uint64_t number) {
        const std::uint32_t tail = *tail_;
        io_uring_sqe &entry = entries_.at<io_uring_sqe>(0)[tail & mask_];
        entry = {};
        entry.opcode = IORING_OP_READ;
        entry.fd = fd;
        entry.off = rest.offset;
        entry.addr = reinterpret_cast<std::uint64_t>(rest.out);
        entry.len = static_cast<std::uint32_t>(rest.bytes);
        entry.user_data = number;
        array_[tail & mask_] = tail & mask_;
        std::atomic_ref(*tail_).store(tail + 1, std::memory_order_release);
        added_++;
    }

    // Submits what was added and waits for at least one completion.
    void submit_and_wait() {
        const long taken = ::syscall(SYS_io_uring_enter, ring_.fd, added_, 1U, IORING_ENTER_GETEVENTS, nullptr, 0UL);
        if (taken >= 0) {
            added_ -= static_cast<unsigned>(taken);
        } else if (errno != EINTR && errno != EAGAIN) {
            fail("submit to io_uring", errno);
        }
    }

    bool take(io_uring_cqe *out) {
        const std::uint32_t head = *done_head_;
        if (head == std::atomic_ref(*done_tail_).load(std::memory_order_acquire)) return false;
        *out = completions_[head & done_mask_];
        std::atomic_ref(*done_head_).store(head + 1, std::memory_order_release);
        return true;
    }

  private:
    RingFd ring_;
    Region queue_;
    Region done_;
    Region entries_;
    std::uint32_t *tail_;
    std::uint32_t mask_;
    std::uint32_t *array_;
    std::uint32_t *done_head_;
    std::uint32_t *done_tail_;
    std::uint32_t done_mask_;
    io_uring_cqe *completions_;
    unsigned added_ = 0;
};

}  // namespace

void read_with_ring(int fd, unsigned depth, const std::vector<Piece> &pieces, const OnPiece &on_piece) {
    Ring ring(depth);
    std::vector<Piece> rest = pieces;
    std::size_t next = 0;
    std::size_t finished = 0;
    for (; next < std::min<std::size_t>(depth, rest.size()); next++) ring.add(fd, rest[next], next);
    while (finished < rest.size()) {
        ring.submit_and_wait();
        for (io_uring_cqe completion{}; ring.take(&completion);) {
            const auto index = static_cast<std::size_t>(completion.user_data);
            Piece &piece = rest[index];
            if (completion.res == -EINTR || completion.res == -EAGAIN) completion.res = 0;
            else if (completion.res < 0) fail("read", -completion.res);
            else if (completion.res == 0) throw std::runtime_error("the file ends too early");
            const auto n = static_cast<std::uint64_t>(completion.res);
            piece = {piece.offset + n, piece.bytes - n, piece.out + n};
            if (piece.bytes > 0) {
                ring.add(fd, piece, index);
                continue;
            }
            finished++;
            if (on_piece) on_piece(index);
            if (next < rest.size()) {
                ring.add(fd, rest[next], next);
                next++;
            }
        }
    }
}

}  // namespace bench
