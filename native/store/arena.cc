// The arena's memory and the thread that keeps some of it warm.
#include "store/arena.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "core/limits.h"
#include "io/address_space.h"

// Of linux/mman.h since Linux 6.1: makes huge pages of a range at once, of memory that was never touched as well.
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace sllm {

namespace {

constexpr std::uint64_t chunk_bytes = limits::arena_chunk_bytes;

constexpr std::uint64_t small_page_bytes = 4096;

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

PrefaultPause::PrefaultPause(Arena &arena) : arena_(&arena) {
    const std::lock_guard lock(arena.mutex_);
    arena.pauses_++;
}

PrefaultPause &PrefaultPause::operator=(PrefaultPause &&other) noexcept {
    if (this != &other) {
        reset();
        arena_ = std::exchange(other.arena_, nullptr);
    }
    return *this;
}

void PrefaultPause::reset() {
    Arena *arena = std::exchange(arena_, nullptr);
    if (arena == nullptr) return;
    const std::lock_guard lock(arena->mutex_);
    arena->pauses_--;
    arena->changed_.notify_all();
}

Status Arena::create(Env &env, const ArenaOptions &options, std::unique_ptr<Arena> *out) {
    const std::uint64_t bytes = options.arena_bytes == 0 ? env.physical_memory() : options.arena_bytes;
    if (bytes > limits::arena_bytes) {
        return {Code::invalid_argument, "arena_bytes is more than " + std::to_string(limits::arena_bytes)};
    }
    const auto chunks = static_cast<std::uint32_t>((bytes + chunk_bytes - 1) / chunk_bytes);
    const auto keep = static_cast<std::uint32_t>(std::min<std::uint64_t>(options.prefault_bytes / chunk_bytes, chunks));
    std::unique_ptr<Arena> arena(new Arena(env, chunks, keep, options.huge_pages));
    if (Status s = arena->open(); !s.ok()) return s;
    arena->worker_ = std::thread([raw = arena.get()] { raw->work_loop(); });
    *out = std::move(arena);
    return {};
}

Arena::Arena(Env &env, std::uint32_t chunks, std::uint32_t keep_faulted, bool huge_pages)
    : env_(env),
      chunk_count_(chunks),
      prefault_bytes_(keep_faulted * chunk_bytes),
      created_ms_(env.now_ms()),
      huge_pages_(huge_pages),
      chunks_(chunks, keep_faulted),
      huge_(chunks) {}

Status Arena::open() {
    const std::uint64_t bytes = chunks_.size() * chunk_bytes;
    if (Status s = reserve_addresses(env_, bytes, &memory_); !s.ok()) return s;
    if (huge_pages_ && map_file(env_.create_reserved_memory("sllm-arena", bytes)).ok()) {
        reserved_ = true;
        huge_pages_ = false;
        // They are nobody else's while the arena lives: giving them back would only risk to find them gone.
        prefault_bytes_ = bytes;
        chunks_ = ChunkAllocator(chunks_.size(), chunks_.size());
        return {};
    }
    return map_file(env_.create_memory("sllm-arena", bytes));
}

Status Arena::map_file(int fd) {
    const std::uint64_t bytes = chunks_.size() * chunk_bytes;
    if (fd < 0) return system_status("create " + std::to_string(bytes) + " bytes of shared memory", -fd);
    fd_ = OwnedFd(env_, fd);
    // An arena that could be cut short would end every engine that mapped it with SIGBUS.
    if (const int error = env_.seal(fd, F_SEAL_SHRINK | F_SEAL_GROW); error < 0) {
        return system_status("seal the size of the arena", -error);
    }
    void *address = nullptr;
    constexpr int flags = MAP_SHARED | MAP_FIXED;
    const int error = env_.map(memory_.data(), bytes, PROT_READ | PROT_WRITE, flags, fd, 0, &address);
    if (error < 0) return system_status("map " + std::to_string(bytes) + " bytes of the arena", -error);
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
    status.huge_bytes = static_cast<std::uint64_t>(std::count(huge_.begin(), huge_.end(), true)) * chunk_bytes;
    status.prefault_bytes = prefault_bytes_;
    status.prefaulting = prefaulted_ms_ < 0;
    status.prefault_ms = (status.prefaulting ? env_.now_ms() : prefaulted_ms_) - created_ms_;
    return status;
}

void Arena::before_punch(std::function<void(std::uint32_t chunk)> forget) {
    const std::lock_guard lock(punch_mutex_);
    before_punch_ = std::move(forget);
}

bool Arena::has_memory(std::uint32_t chunk) {
    const std::lock_guard lock(mutex_);
    return chunks_.has_memory(chunk);
}

bool Arena::is_huge(std::uint32_t chunk) {
    const std::lock_guard lock(mutex_);
    return huge_[chunk];
}

void Arena::fault_in(std::uint32_t chunk) {
    const Faulted outcome = populate(chunk, [] { return true; });
    const std::lock_guard lock(mutex_);
    note(chunk, outcome);
    // Where it cannot be done ahead, the first touch does it.
    chunks_.got_memory(chunk);
}

void Arena::note(std::uint32_t chunk, Faulted outcome) { huge_[chunk] = outcome == Faulted::huge_pages; }

void Arena::work_loop() {
    env_.make_thread_idle();
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stopping_ || (waiting_ == 0 && pauses_ == 0); });
        if (stopping_) return;
        const ChunkAllocator::Work work = chunks_.next_work();
        if (work.task == ChunkAllocator::Task::none) {
            if (prefaulted_ms_ < 0) prefaulted_ms_ = env_.now_ms();
            changed_.wait(lock);
            continue;
        }
        lock.unlock();
        const ChunkAllocator::Outcome outcome = perform(work);
        lock.lock();
        chunks_.finish(work, outcome);
        changed_.notify_all();
    }
}

ChunkAllocator::Outcome Arena::perform(ChunkAllocator::Work work) {
    using Outcome = ChunkAllocator::Outcome;
    if (work.task == ChunkAllocator::Task::punch) {
        {
            const std::lock_guard lock(punch_mutex_);
            if (before_punch_) before_punch_(work.chunk);
        }
        const bool punched = env_.punch_hole(fd_.get(), work.chunk * chunk_bytes, chunk_bytes) >= 0;
        const std::lock_guard lock(mutex_);
        if (punched) huge_[work.chunk] = false;
        return punched ? Outcome::done : Outcome::failed;
    }
    const Faulted outcome = populate(work.chunk, [this] {
        const std::lock_guard lock(mutex_);
        return !stopping_ && waiting_ == 0 && pauses_ == 0;
    });
    const std::lock_guard lock(mutex_);
    note(work.chunk, outcome);
    return outcome == Faulted::put_off ? Outcome::put_off
           : outcome == Faulted::failed ? Outcome::failed
                                        : Outcome::done;
}

Arena::Faulted Arena::populate(std::uint32_t chunk, const std::function<bool()> &go_on) {
    Faulted outcome = Faulted::huge_pages;
    for (std::uint64_t offset = 0; offset < chunk_bytes; offset += huge_page_bytes) {
        if (!go_on()) return Faulted::put_off;
        std::uint8_t *memory = at(chunk) + offset;
        if (populate_huge(memory)) continue;
        // Kernels before 5.14 cannot; the pages are then touched by whoever comes first.
        if (env_.advise(memory, huge_page_bytes, MADV_POPULATE_WRITE) < 0) return Faulted::failed;
        if (!reserved_) outcome = Faulted::small_pages;
    }
    return outcome;
}

bool Arena::populate_huge(std::uint8_t *memory) {
    if (!huge_pages_) return false;
    // The kernel makes a huge page only where a first small one is there.
    if (env_.advise(memory, small_page_bytes, MADV_POPULATE_WRITE) < 0) return false;
    const int error = env_.advise(memory, huge_page_bytes, MADV_COLLAPSE);
    // A kernel that does not know the advice says so each time; other failures are about this page alone.
    if (error == -EINVAL) huge_pages_ = false;
    return error >= 0;
}

}  // namespace sllm
