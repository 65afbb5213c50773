// Volume: one file system that checkpoints are read from, with a thread that keeps its reads in flight. Loads are
// served in the order they came; the oldest two share the volume three to one, so that a small one behind a large one
// is not stuck, and a large one is hardly delayed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/read_queue.h"
#include "store/load.h"
#include "store/probe.h"

namespace sllm {

struct VolumeOptions {
    ReadSettings settings;        // to begin with
    bool probe = false;           // whether to find better ones, once, when a load has ended and nothing is to do
    std::string state_file;       // keeps what was found; empty: nothing does
    bool register_memory = true;  // whether io_uring keeps the arena's pages at hand
    double bytes_per_second = 0;  // that are read at most; 0: as many as can be
};

struct VolumeStatus {
    std::int64_t file_system = 0;
    ReadSettings settings;
    bool probed = false;           // the settings were found by a probe, in this run or an earlier one
    double bytes_per_second = 0;   // measured by the probe or the last large load; 0: not yet
    std::uint64_t registered_bytes = 0;
    std::uint64_t queued_bytes = 0;  // of loads in progress, not read yet
    std::uint32_t queued_loads = 0;
};

class Volume {
public:
    // Whom a volume tells what it did, with the mutex held.
    class Listener {
    public:
        virtual ~Listener() = default;
        // Blocks of the chunk may be ready for the digest.
        virtual void on_blocks(const std::shared_ptr<Load> &load, const std::shared_ptr<ChunkRead> &chunk) = 0;
        // A load failed.
        virtual void on_failure() = 0;
    };

    // `mutex` guards the volume and its loads; it and the listener must outlive the volume.
    Volume(Env &env, Arena &arena, std::int64_t file_system, const VolumeOptions &options, std::mutex &mutex,
           Listener &listener);
    // After stop(). Waits until no read is in flight.
    ~Volume();
    Volume(const Volume &) = delete;
    Volume &operator=(const Volume &) = delete;

    // All with the mutex held.
    void add(std::shared_ptr<Load> load);
    // A load of this volume has blocks to read, or memory for them, that it had not before; or it has ended.
    void wake();
    // The arena is about to take a chunk's memory away.
    void forget_memory(std::uint32_t arena_chunk);
    // No further read begins.
    void stop();
    VolumeStatus status() const;

private:
    // A read in flight. Its index is the read's tag.
    struct Flight {
        std::shared_ptr<Load> load;
        BlockRead read;
        std::uint32_t done = 0;     // bytes that have arrived
        std::uint32_t fruitless = 0;  // attempts in a row that brought no byte
        Source source = Source::direct;
    };

    void read_loop();
    // Waits for work; finds better settings meanwhile.
    void rest(std::unique_lock<std::mutex> &lock);
    // False while the bound on the rate forbids a read.
    bool may_read();
    // Waits until it allows the next one, or something else is to be done.
    void wait_for_rate(std::unique_lock<std::mutex> &lock);
    bool open_queue();
    void close_queue();
    void register_memory(std::uint32_t arena_chunk);
    // Begins reads as long as there are blocks and room for them.
    void fill();
    bool next_read(Flight *out);
    void wait_for_work(std::unique_lock<std::mutex> &lock);
    void forget_ended();
    void begin(std::uint64_t tag);
    void take(const ReadResult &result);
    void end(std::uint64_t tag, const Status &outcome);

    Env &env_;
    Arena &arena_;
    const std::int64_t file_system_;
    const VolumeOptions options_;
    std::mutex &mutex_;
    Listener &listener_;
    // All below is guarded by mutex_. Only the thread adds to the queue, waits for it and replaces it.
    ReadSettings settings_;
    bool probed_ = false;
    double bytes_per_second_ = 0;
    std::string probe_path_;  // a file to probe with; empty: none yet, or no need
    std::unique_ptr<ReadQueue> queue_;
    std::vector<bool> registered_;  // chunks of the arena that the queue keeps at hand
    bool may_register_ = false;     // further ones
    std::condition_variable work_;
    bool stopping_ = false;
    std::deque<std::shared_ptr<Load>> loads_;  // in progress, oldest first
    std::uint32_t turn_ = 0;
    double next_read_ms_ = 0;  // with a bound on the rate: when the next read may begin
    std::vector<Flight> flights_;
    std::vector<std::uint64_t> free_flights_;
    std::uint32_t in_flight_ = 0;
    std::thread thread_;
};

}  // namespace sllm
