// The reader pool and its queue.
#include "store/store.h"

#include <algorithm>
#include <chrono>

namespace sllm {

Status Store::create(std::uint32_t reader_threads, const ArenaOptions &options, Env &env,
                     std::unique_ptr<Store> *out) {
    std::unique_ptr<Arena> arena;
    if (Status s = Arena::create(env, options, &arena); !s.ok()) return s;
    out->reset(new Store(reader_threads, std::move(arena), env));
    return {};
}

Store::Store(std::uint32_t reader_threads, std::unique_ptr<Arena> arena, Env &env)
    : env_(env), arena_(std::move(arena)) {
    readers_.reserve(reader_threads);
    for (std::uint32_t i = 0; i < reader_threads; i++) readers_.emplace_back([this] { read_loop(); });
}

Store::~Store() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        queue_.clear();
        for (auto &[number, load] : loads_) {
            load->fail({Code::closed, "the store was closed while the checkpoint was loading"}, env_.now_ms());
        }
    }
    work_.notify_all();
    progress_.notify_all();
    for (std::thread &reader : readers_) reader.join();
}

Status Store::load(LoadRequest request, std::uint64_t *number) {
    auto load = std::make_shared<Load>();
    if (Status s = Load::open(env_, *arena_, std::move(request), load.get()); !s.ok()) return s;
    const std::lock_guard lock(mutex_);
    *number = ++last_number_;
    loads_.emplace(*number, load);
    if (load->has_work()) queue_.push_back(load);
    work_.notify_all();
    note_progress();
    return {};
}

Status Store::status(std::uint64_t number, LoadStatus *out) {
    const std::lock_guard lock(mutex_);
    const auto found = loads_.find(number);
    if (found == loads_.end()) return {Code::not_found, "no load " + std::to_string(number)};
    *out = found->second->status(env_.now_ms());
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
    load->release(env_.now_ms());
    std::erase(queue_, load);
    note_progress();
    return {};
}

void Store::note_progress() {
    progress_count_++;
    progress_.notify_all();
}

void Store::read_loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_) return;
        std::shared_ptr<Load> load = queue_.front();
        const std::uint64_t chunk = load->take_chunk(env_.now_ms());
        if (!load->has_work()) queue_.pop_front();
        lock.unlock();
        const Status outcome = load->read_chunk(chunk);
        lock.lock();
        load->complete(chunk, outcome, env_.now_ms());
        if (!outcome.ok()) std::erase(queue_, load);
        note_progress();
        // The last owner's closing of the host copy takes its time.
        lock.unlock();
        load.reset();
        lock.lock();
    }
}

}  // namespace sllm
