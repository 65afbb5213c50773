// Volume: one file system that checkpoints are read from, with a thread that keeps its reads in flight. Loads are
// served in the order they came; the oldest two share the volume three to one, so that a small one behind a large one
// is not stuck, and a large one is hardly delayed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "io/read_queue.h"
#include "store/load.h"

namespace sllm {

// How a volume is read.
struct ReadSettings {
    ReadMethod method = ReadMethod::ring;
    std::uint32_t block_bytes = std::uint32_t{4} << 20;
    std::uint64_t in_flight_bytes = std::uint64_t{64} << 20;
};

struct VolumeStatus {
    std::int64_t file_system = 0;
    ReadSettings settings;
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
    Volume(Env &env, std::int64_t file_system, const ReadSettings &settings, std::mutex &mutex, Listener &listener);
    // After stop(). Waits until no read is in flight.
    ~Volume();
    Volume(const Volume &) = delete;
    Volume &operator=(const Volume &) = delete;

    // All with the mutex held.
    void add(std::shared_ptr<Load> load);
    // A load of this volume has blocks to read, or memory for them, that it had not before; or it has ended.
    void wake();
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
    bool open_queue();
    // Begins reads as long as there are blocks and room for them.
    void fill();
    bool next_read(Flight *out);
    void forget_ended();
    void begin(std::uint64_t tag);
    void take(const ReadResult &result);
    void end(std::uint64_t tag, const Status &outcome);
    std::uint32_t depth() const;

    Env &env_;
    const std::int64_t file_system_;
    std::mutex &mutex_;
    Listener &listener_;
    // All below is guarded by mutex_, but the queue: it belongs to the thread.
    ReadSettings settings_;
    std::unique_ptr<ReadQueue> queue_;
    std::condition_variable work_;
    bool stopping_ = false;
    std::deque<std::shared_ptr<Load>> loads_;  // in progress, oldest first
    std::uint32_t turn_ = 0;
    std::vector<Flight> flights_;
    std::vector<std::uint64_t> free_flights_;
    std::uint32_t in_flight_ = 0;
    std::thread thread_;
};

}  // namespace sllm
