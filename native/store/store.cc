// Loads by number, and the worker threads.
#include "store/store.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>

namespace sllm {

Status Store::create(const StoreOptions &options, Env &env, std::unique_ptr<Store> *out) {
    std::unique_ptr<Arena> arena;
    if (Status s = Arena::create(env, options.arena, &arena); !s.ok()) return s;
    out->reset(new Store(options, std::move(arena), env));
    return {};
}

Store::Store(const StoreOptions &options, std::unique_ptr<Arena> arena, Env &env)
    : env_(env), options_(options), arena_(std::move(arena)) {
    arena_->before_punch([this](std::uint32_t chunk) {
        const std::lock_guard lock(mutex_);
        for (auto &[file_system, volume] : volumes_) volume->forget_memory(chunk);
    });
    const std::uint32_t workers = options.workers > 0 ? options.workers : std::clamp(env.processors(), 2u, 8u);
    workers_.reserve(workers);
    for (std::uint32_t i = 0; i < workers; i++) workers_.emplace_back([this] { work_loop(); });
}

Store::~Store() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        for (auto &[number, load] : loads_) {
            load->fail({Code::closed, "the store was closed while the checkpoint was loading"});
        }
        for (auto &[file_system, volume] : volumes_) volume->stop();
    }
    work_.notify_all();
    progress_.notify_all();
    for (std::thread &worker : workers_) worker.join();
    arena_->before_punch({});
    volumes_.clear();
}

Status Store::load(LoadRequest request, std::uint64_t *number) {
    auto load = std::make_shared<Load>();
    if (Status s = Load::open(env_, *arena_, std::move(request), load.get()); !s.ok()) return s;
    const std::lock_guard lock(mutex_);
    *number = ++last_number_;
    loads_.emplace(*number, load);
    if (load->loading()) {
        if (load->needs_memory()) cold_.push_back(load);
        volume_of(load->file().file_system()).add(load);
        work_.notify_all();
    }
    note_progress();
    return {};
}

Volume &Store::volume_of(std::int64_t file_system) {
    std::unique_ptr<Volume> &volume = volumes_[file_system];
    if (volume != nullptr) return *volume;
    VolumeOptions options{options_.reads, options_.probe, {}, options_.register_memory, options_.bytes_per_second};
    if (!options_.state_dir.empty()) {
        options.state_file = options_.state_dir + "/volume-" + std::to_string(file_system);
    }
    Volume::Listener &listener = *this;
    volume = std::make_unique<Volume>(env_, *arena_, file_system, options, mutex_, listener);
    return *volume;
}

Status Store::status(std::uint64_t number, LoadStatus *out) {
    const std::lock_guard lock(mutex_);
    const auto found = loads_.find(number);
    if (found == loads_.end()) return {Code::not_found, "no load " + std::to_string(number)};
    *out = found->second->status();
    return {};
}

void Store::wait(std::uint64_t timeout_us) {
    std::unique_lock lock(mutex_);
    // Bounded, because a deadline near the end of the clock's range overflows in the standard library.
    const std::chrono::microseconds timeout(std::min<std::uint64_t>(timeout_us, 3'600'000'000));
    progress_.wait_for(lock, timeout, [this] { return stopping_ || progress_count_ != progress_seen_; });
    progress_seen_ = progress_count_;
}

Status Store::release(std::uint64_t number) {
    std::shared_ptr<Load> load;  // destroyed after the lock is gone: closing takes its time
    const std::lock_guard lock(mutex_);
    const auto found = loads_.find(number);
    if (found == loads_.end()) return {Code::not_found, "no load " + std::to_string(number)};
    load = std::move(found->second);
    loads_.erase(found);
    load->release();
    wake_volume_of(*load);
    note_progress();
    return {};
}

Status Store::volume_status(const std::string &path, VolumeStatus *out) {
    const OwnedFd fd(env_, env_.open(path.c_str(), O_RDONLY));
    if (!fd.valid()) return system_status("open " + path, -fd.get());
    const std::int64_t file_system = env_.file_system_of(fd.get());
    if (file_system < 0) return system_status("stat " + path, static_cast<int>(-file_system));
    const std::lock_guard lock(mutex_);
    *out = volume_of(file_system).status();
    return {};
}

void Store::note_progress() {
    progress_count_++;
    progress_.notify_all();
}

void Store::wake_volume_of(Load &load) {
    const auto volume = volumes_.find(load.file().file_system());
    if (volume != volumes_.end()) volume->second->wake();
}

void Store::on_blocks(const std::shared_ptr<Load> &load, const std::shared_ptr<ChunkRead> &chunk) {
    if (!load->loading() || !chunk->can_claim()) return;
    digests_.push_back({load, chunk});
    work_.notify_one();
}

void Store::work_loop() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        if (!digests_.empty()) {
            DigestJob job = std::move(digests_.front());
            digests_.pop_front();
            digest(lock, std::move(job));
        } else if (!fault_in(lock)) {
            work_.wait(lock);
        }
    }
}

void Store::digest(std::unique_lock<std::mutex> &lock, DigestJob job) {
    Load &load = *job.load;
    while (load.loading()) {
        const std::span<const Block> blocks = job.chunk->claim();
        if (blocks.empty()) break;
        load.digest_begun();
        lock.unlock();
        const double before = env_.thread_cpu_ms();
        job.chunk->digest(blocks);
        const double cpu_ms = env_.thread_cpu_ms() - before;
        lock.lock();
        load.digest_done(job.chunk, blocks.size(), cpu_ms);
        // A chunk with a wrong digest is read once more.
        if (!load.loading() || load.has_blocks()) wake_volume_of(load);
        note_progress();
    }
    // The last owner's closing of the host copy takes its time.
    lock.unlock();
    job = {};
    lock.lock();
}

bool Store::fault_in(std::unique_lock<std::mutex> &lock) {
    std::size_t index = 0;
    while (!cold_.empty() && !cold_.front()->next_fault(&index)) cold_.pop_front();
    if (cold_.empty()) return false;
    std::shared_ptr<Load> load = cold_.front();
    lock.unlock();
    const double before = env_.thread_cpu_ms();
    arena_->fault_in(load->arena_chunk(index));
    const double cpu_ms = env_.thread_cpu_ms() - before;
    lock.lock();
    load->fault_done(index, cpu_ms);
    wake_volume_of(*load);
    lock.unlock();
    load.reset();
    lock.lock();
    return true;
}

}  // namespace sllm
