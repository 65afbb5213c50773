// Faults on demand.
#include "test/faulty_env.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace test {

namespace {

// An io_uring whose results are changed on their way.
class FaultyRing : public sllm::ReadQueue {
public:
    FaultyRing(std::unique_ptr<sllm::ReadQueue> ring, const FaultyEnv::Read &on_read)
        : ring_(std::move(ring)), on_read_(on_read) {}

    void add(const sllm::ReadOp &op) override {
        ops_[op.tag] = op;
        ring_->add(op);
    }
    void wait(std::vector<sllm::ReadResult> *out) override {
        if (waiting_.empty()) ring_->wait(&waiting_);
        sllm::ReadResult result = waiting_.front();
        waiting_.erase(waiting_.begin());
        change(result);
        out->push_back(result);
    }
    bool register_buffer(std::uint32_t slot, std::span<std::uint8_t> memory) override {
        return ring_->register_buffer(slot, memory);
    }
    void forget_buffer(std::uint32_t slot) override { ring_->forget_buffer(slot); }

private:
    void change(sllm::ReadResult &result) {
        const sllm::ReadOp op = ops_[result.tag];
        const auto real = [&](std::size_t n) { return std::min<ssize_t>(result.result, static_cast<ssize_t>(n)); };
        const ssize_t changed = on_read_(op.fd, op.out, op.bytes, op.offset, real);
        // What a read says it has not brought must not be there: nobody may count on it.
        const std::size_t brought = changed > 0 ? static_cast<std::size_t>(changed) : 0;
        std::memset(op.out + brought, 0xEE, op.bytes - brought);
        result.result = changed;
    }

    std::unique_ptr<sllm::ReadQueue> ring_;
    const FaultyEnv::Read &on_read_;
    std::map<std::uint64_t, sllm::ReadOp> ops_;
    std::vector<sllm::ReadResult> waiting_;  // one is told at a time, so that a slow one does not hold the others back
};

}  // namespace

int FaultyEnv::make_read_queue(sllm::ReadMethod method, std::uint32_t depth, std::uint32_t buffers,
                               std::unique_ptr<sllm::ReadQueue> *out) {
    if (method == sllm::ReadMethod::ring && ring_error != 0) return ring_error;
    const int error = Env::make_read_queue(method, depth, buffers, out);
    if (error == 0 && method == sllm::ReadMethod::ring && on_read) {
        *out = std::make_unique<FaultyRing>(std::move(*out), on_read);
    }
    return error;
}

int FaultyEnv::open(const char *path, int flags) {
    return (flags & O_DIRECT) != 0 && direct_open_error != 0 ? direct_open_error : Env::open(path, flags);
}

ssize_t FaultyEnv::pread(int fd, void *out, std::size_t bytes, std::uint64_t offset) {
    if (!on_read) return Env::pread(fd, out, bytes, offset);
    return on_read(fd, out, bytes, offset, [&](std::size_t n) { return Env::pread(fd, out, n, offset); });
}

std::int64_t FaultyEnv::cached_bytes(int, std::uint64_t, std::uint64_t bytes) {
    return cached ? static_cast<std::int64_t>(bytes) : 0;
}

int FaultyEnv::create_memory(const char *name, std::uint64_t bytes) {
    return memory_error != 0 ? memory_error : Env::create_memory(name, bytes);
}

int FaultyEnv::create_reserved_memory(const char *name, std::uint64_t bytes) {
    return reserve ? create_memory(name, bytes) : -ENOMEM;
}

int FaultyEnv::advise(void *address, std::size_t bytes, int advice) {
    if (before_advise) before_advise();
    return advise_error != 0 ? advise_error : Env::advise(address, bytes, advice);
}

int FaultyEnv::punch_hole(int fd, std::uint64_t offset, std::uint64_t bytes) {
    return punch_error != 0 ? punch_error : Env::punch_hole(fd, offset, bytes);
}

}  // namespace test
