// The arena's memory and the thread that keeps some of it warm.
#include "store/arena.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "core/limits.h"

namespace sllm {

namespace {

constexpr std::uint64_t chunk_bytes = limits::arena_chunk_bytes;

std::string mebibytes(std::uint64_t chunks) { return std::to_string(chunks * (chunk_bytes >> 20)) + " MiB"; }

}  // namespace

ArenaChunks::ArenaChunks(ArenaChunks &&other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)), chunks_(std::exchange(other.chunks_, {})) {}

ArenaChunks &ArenaChunks::operator=(ArenaChunks &&other) noexcept {
    if (this != &other) {
        reset();
        arena_ = std::exchange(other.arena_, nullptr);
        chunks_ = std::exchange(other.chunks_, {});
    }
    return *this;
}

void ArenaChunks::reset() {
    if (arena_ != nullptr) std::exchange(arena_, nullptr)->give_back(chunks_);
    chunks_.clear();
}

Status Arena::create(Env &env, const ArenaOptions &options, std::unique_ptr<Arena> *out) {
    const std::uint64_t bytes = options.arena_bytes == 0 ? env.physical_memory() : options.arena_bytes;
    if (bytes > limits::arena_bytes) {
        return {Code::invalid_argument, "arena_bytes is more than " + std::to_string(limits::arena_bytes)};
    }
    const auto chunks = static_cast<std::uint32_t>((bytes + chunk_bytes - 1) / chunk_bytes);
    const auto keep = static_cast<std::uint32_t>(std::min<std::uint64_t>(options.prefault_bytes / chunk_bytes, chunks));
    std::unique_ptr<Arena> arena(new Arena(env, chunks, keep));
    if (Status s = arena->open(); !s.ok()) return s;
    arena->worker_ = std::thread([raw = arena.get()] { raw->work_loop(); });
    *out = std::move(arena);
    return {};
}

Arena::Arena(Env &env, std::uint32_t chunks, std::uint32_t keep_faulted)
    : env_(env),
      prefault_bytes_(keep_faulted * chunk_bytes),
      created_ms_(env.now_ms()),
      chunks_(chunks, keep_faulted) {}

Status Arena::open() {
    const std::uint64_t bytes = chunks_.size() * chunk_bytes;
    const int fd = env_.create_memory("sllm-arena", bytes);
    if (fd < 0) return system_status("create " + std::to_string(bytes) + " bytes of shared memory", -fd);
    fd_ = OwnedFd(env_, fd);
    // An arena that could be cut short would end every engine that mapped it with SIGBUS.
    if (const int error = env_.seal(fd, F_SEAL_SHRINK | F_SEAL_GROW); error < 0) {
        return system_status("seal the size of the arena", -error);
    }
    void *address = nullptr;
    const int error = env_.map(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0, &address);
    if (error < 0) return system_status("map " + std::to_string(bytes) + " bytes of the arena", -error);
    memory_ = Mapping(env_, address, bytes);
    // Huge pages make the first touch cheaper where the system has them for shared memory; where it has not, nothing
    // changes, so the answer does not matter.
    env_.advise(memory_.data(), memory_.bytes(), MADV_HUGEPAGE);
    return {};
}

Arena::~Arena() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    if (worker_.joinable()) worker_.join();
}

std::uint8_t *Arena::at(std::uint32_t chunk) const { return memory_.data() + chunk * chunk_bytes; }

Status Arena::take(std::uint64_t bytes, ArenaChunks *out) {
    const std::uint64_t n = (bytes + chunk_bytes - 1) / chunk_bytes;
    std::unique_lock lock(mutex_);
    if (n <= chunks_.free() + chunks_.in_work()) {
        // What the background thread is at is free in a moment.
        waiting_++;
        changed_.wait(lock, [&] { return n <= chunks_.free() || n > chunks_.free() + chunks_.in_work(); });
        waiting_--;
        changed_.notify_all();
    }
    std::vector<std::uint32_t> taken;
    if (n > chunks_.size() || !chunks_.take(static_cast<std::uint32_t>(n), &taken)) {
        return {Code::out_of_memory, "the weights need " + mebibytes(n) + " of host memory; " +
                                         mebibytes(chunks_.used()) + " of the arena's " + mebibytes(chunks_.size()) +
                                         " are in use: raise memory_bytes of the worker or stop a model"};
    }
    *out = ArenaChunks(*this, std::move(taken));
    return {};
}

void Arena::give_back(const std::vector<std::uint32_t> &chunks) {
    const std::lock_guard lock(mutex_);
    chunks_.give_back(chunks);
    changed_.notify_all();
}

ArenaStatus Arena::status() {
    const std::lock_guard lock(mutex_);
    ArenaStatus status;
    status.arena_bytes = chunks_.size() * chunk_bytes;
    status.used_bytes = chunks_.used() * chunk_bytes;
    status.faulted_bytes = chunks_.faulted() * chunk_bytes;
    status.prefault_bytes = prefault_bytes_;
    status.prefaulting = prefaulted_ms_ < 0;
    status.prefault_ms = (status.prefaulting ? env_.now_ms() : prefaulted_ms_) - created_ms_;
    return status;
}

void Arena::work_loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stopping_ || waiting_ == 0; });
        if (stopping_) return;
        const ChunkAllocator::Work work = chunks_.next_work();
        if (work.task == ChunkAllocator::Task::none) {
            if (prefaulted_ms_ < 0) prefaulted_ms_ = env_.now_ms();
            changed_.wait(lock);
            continue;
        }
        lock.unlock();
        const bool succeeded = perform(work);
        lock.lock();
        chunks_.finish(work, succeeded);
        changed_.notify_all();
    }
}

bool Arena::perform(ChunkAllocator::Work work) {
    if (work.task == ChunkAllocator::Task::punch) {
        return env_.punch_hole(fd_.get(), work.chunk * chunk_bytes, chunk_bytes) >= 0;
    }
    // Kernels before 5.14 cannot; readers then touch the pages themselves, as with any chunk that is cold.
    return env_.advise(at(work.chunk), chunk_bytes, MADV_POPULATE_WRITE) >= 0;
}

}  // namespace sllm
