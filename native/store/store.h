// Store: reads checkpoints from disk into chunks of its arena. A thread per volume keeps reads in flight; worker
// threads fault memory in ahead of them and digest what has arrived, so that the disk waits for neither.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/status.h"
#include "store/load.h"
#include "store/volume.h"

namespace sllm {

struct StoreOptions {
    ArenaOptions arena;
    ReadSettings reads = {};      // of volumes that nothing is known about
    bool probe = false;           // whether to find out what suits a volume
    std::string state_dir = {};   // folder that keeps what was found; empty: nothing does
    bool register_memory = true;  // with io_uring, as far as the limit of locked memory goes
    double bytes_per_second = 0;  // read from a volume at most; 0: as many as can be
    std::uint32_t workers = 0;    // that digest and fault in; 0: one per processor, 2 to 8
};

class Store : private Volume::Listener {
public:
    // INVALID_ARGUMENT, OUT_OF_MEMORY, IO.
    static Status create(const StoreOptions &options, Env &env, std::unique_ptr<Store> *out);
    // Fails all loads as CLOSED, joins the threads, closes all host copies and the arena.
    ~Store() override;
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;

    // All [any]. A released copy's chunks are used for other weights: no engine may map it any more.
    Status load(LoadRequest request, std::uint64_t *number);
    Status status(std::uint64_t number, LoadStatus *out);
    // Waits until progress was made since the last wait returned, or for timeout_us. [blocks]
    void wait(std::uint64_t timeout_us);
    Status release(std::uint64_t number);
    ArenaStatus arena_status() { return arena_->status(); }
    // Of the volume that a file lies on. NOT_FOUND, IO.
    Status volume_status(const std::string &path, VolumeStatus *out);

private:
    struct DigestJob {
        std::shared_ptr<Load> load;
        std::shared_ptr<ChunkRead> chunk;
    };

    Store(const StoreOptions &options, std::unique_ptr<Arena> arena, Env &env);
    void on_blocks(const std::shared_ptr<Load> &load, const std::shared_ptr<ChunkRead> &chunk) override;
    void on_failure() override { note_progress(); }
    Volume &volume_of(std::int64_t file_system);
    void note_progress();
    void work_loop();
    void digest(std::unique_lock<std::mutex> &lock, DigestJob job);
    // Faults one chunk in for the oldest load that needs it; false when none does.
    bool fault_in(std::unique_lock<std::mutex> &lock);
    void wake_volume_of(Load &load);

    Env &env_;
    const StoreOptions options_;
    const std::unique_ptr<Arena> arena_;
    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable work_;
    std::condition_variable progress_;
    bool stopping_ = false;
    std::uint64_t last_number_ = 0;
    std::uint64_t progress_count_ = 0;
    std::uint64_t progress_seen_ = 0;
    std::unordered_map<std::uint64_t, std::shared_ptr<Load>> loads_;
    std::deque<std::shared_ptr<Load>> cold_;  // loads whose memory is not all there, oldest first
    std::deque<DigestJob> digests_;
    std::map<std::int64_t, std::unique_ptr<Volume>> volumes_;
    std::vector<std::thread> workers_;
};

}  // namespace sllm
