// One load: a file on its way into chunks of the arena. Hands out what can be done next (fault memory in, read a block,
// digest blocks) to the threads of the store and keeps what became of it. Reads nothing itself.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "store/arena.h"
#include "store/chunk_read.h"
#include "store/host_copy.h"
#include "store/lanes.h"
#include "store/weights_file.h"

namespace sllm {

struct LoadRequest {
    std::string weights_path;
    std::uint64_t weights_bytes = 0;
    std::uint64_t chunk_bytes = 0;
    std::vector<std::uint64_t> chunk_digests;
    std::uint32_t stream_chunks = 0;  // of the arena, through which the weights pass; 0: all stay
    std::uint32_t lanes = 1;          // stretches of the weights that are read side by side
};

// When a load's stages were reached, in milliseconds since it was submitted, and what they cost. 0: not reached.
struct LoadTrace {
    double first_read_ms = 0;      // the first read was begun
    double first_verified_ms = 0;  // the first chunk was there and its digest right
    double last_read_ms = 0;       // the last block had arrived
    double ended_ms = 0;           // the last digest was right, or the load failed
    double memory_wait_ms = 0;     // nothing was being read because memory was not faulted in yet
    double fault_ms = 0;           // processor time to fault memory in, of all threads
    double digest_ms = 0;          // processor time of the digests
    std::uint64_t direct_bytes = 0;    // read around the page cache
    std::uint64_t cached_bytes = 0;    // copied from the page cache, which had them
    std::uint64_t buffered_bytes = 0;  // read through the page cache, which had not all of them
    std::uint32_t retries = 0;         // reads that came back short or interrupted and were continued
    std::uint32_t rereads = 0;         // chunks that were read twice because their digest differed
};

struct LoadStatus {
    std::int32_t state = 0;  // LoadState or a negative Code
    int fd = -1;
    bool direct_io = false;
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;
    double read_ms = 0;
    LoadTrace trace;
    std::string message;
};

// How a block was read.
enum class Source { direct, cached, buffered };

// A block that was handed out to be read.
struct BlockRead {
    std::shared_ptr<ChunkRead> chunk;
    std::size_t block = 0;
    std::uint32_t arena_chunk = 0;  // that it lies in
};

// Guarded by the store's mutex. Whatever is handed out must be reported back: memory stays with the load until then.
class Load {
public:
    // INVALID_ARGUMENT, NOT_FOUND, IO, OUT_OF_MEMORY; a file of another size makes a load that has failed as CORRUPT.
    static Status open(Env &env, Arena &arena, LoadRequest request, Load *out);

    bool loading() const { return state_ == in_progress; }
    WeightsFile &file() { return file_; }

    // Whether blocks are left that were not handed out and whose place is free.
    bool has_blocks() const;
    // Whether the next block of a streamed copy waits for its place; nobody tells when it is free.
    bool awaits_engine() const;
    // Hands out the next block, `block_bytes` long at most. False when none is left, or its memory is not there yet.
    bool next_block(std::uint32_t block_bytes, BlockRead *out);
    // A block has arrived; the chunk may have blocks to digest now.
    void block_arrived(const BlockRead &read, Source source);
    // A block will not arrive: reading failed, or the load had ended before.
    void block_dropped(const Status &why);
    void count_retry() { trace_.retries++; }

    bool needs_memory() const;
    // The next chunk of the arena that must be faulted in, as an index; false when there is none.
    bool next_fault(std::size_t *index);
    std::uint32_t arena_chunk(std::size_t index) const { return chunks_.numbers()[index]; }
    void fault_done(std::size_t index, double cpu_ms);

    // A thread begins and ends to digest blocks of a chunk. `blocks` of them are in the digest now.
    void digest_begun() { busy_++; }
    void digest_done(const std::shared_ptr<ChunkRead> &chunk, std::size_t blocks, double cpu_ms);

    // Ends a load in progress; threads that are at it find out when they report. A failed copy keeps no chunks: no
    // engine computes on it.
    void fail(const Status &why);
    // Nobody wants the copy any more: a load in progress fails as CLOSED, and the chunks go back to the arena, at once
    // or with the last report.
    void release();

    LoadStatus status() const;
    // Of a load that has ended well, read enough from the disk to tell and never waited for memory nor, as streams do,
    // for an engine; 0 otherwise.
    double disk_bytes_per_second() const;
    std::uint64_t bytes_left() const { return loading() ? request_.weights_bytes - bytes_arrived_ : 0; }

private:
    static constexpr std::int32_t in_progress = static_cast<std::int32_t>(LoadState::loading);
    enum class Memory : std::uint8_t { cold, faulting, ready };

    std::uint64_t n_chunks() const { return request_.chunk_digests.size(); }
    std::uint64_t chunk_size(std::uint64_t chunk) const;
    bool has_next() const { return loading() && (!open_chunks_.empty() || begun_chunks_ < n_chunks()); }
    std::uint64_t next_offset() const;
    bool place_is_free() const;
    // Where in chunks_ an offset of the weights lies.
    std::size_t place_of(std::uint64_t offset) const;
    Status open_lanes();
    void plan_faults();
    std::shared_ptr<ChunkRead> begin_chunk(std::uint64_t chunk, std::uint32_t block_bytes);
    void chunk_digested(const std::shared_ptr<ChunkRead> &chunk);
    void chunk_verified(const ChunkRead &chunk);
    void end(std::int32_t state);
    void give_chunks_back_when_idle();
    double since_submitted() const { return env_->now_ms() - submitted_ms_; }

    Env *env_ = nullptr;
    Arena *arena_ = nullptr;
    LoadRequest request_;
    WeightsFile file_;
    ArenaChunks chunks_;
    std::vector<Memory> memory_;  // of each chunk in chunks_
    std::vector<std::size_t> fault_order_;  // of chunks_, as they are read
    std::size_t next_fault_ = 0;            // in fault_order_
    PrefaultPause pause_;
    HostCopy copy_;

    bool released_ = false;
    std::int32_t state_ = in_progress;
    std::string message_;
    Lanes lanes_;
    std::uint64_t begun_chunks_ = 0;
    std::deque<std::shared_ptr<ChunkRead>> open_chunks_;  // with blocks that were not handed out, in reading order
    std::vector<std::uint64_t> ready_chunks_;  // of each lane: all its chunks before this one are done
    std::uint64_t done_chunks_ = 0;
    std::vector<bool> done_;
    std::uint64_t bytes_arrived_ = 0;
    std::uint64_t bytes_done_ = 0;
    std::uint32_t reading_ = 0;  // blocks handed out
    std::uint32_t busy_ = 0;     // whatever else was handed out
    double submitted_ms_ = 0;
    double waiting_since_ms_ = -1;  // that memory is waited for with nothing being read; negative: not now
    LoadTrace trace_;
};

}  // namespace sllm
