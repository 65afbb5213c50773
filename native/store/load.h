// One load: a file on its way into chunks of the arena. Hands out chunks to reader threads and keeps what became of
// them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/arena.h"
#include "store/chunk_reader.h"
#include "store/host_copy.h"

namespace sllm {

struct LoadRequest {
    std::string weights_path;
    std::uint64_t weights_bytes = 0;
    std::uint64_t chunk_bytes = 0;
    std::vector<std::uint64_t> chunk_digests;
};

struct LoadStatus {
    std::int32_t state = 0;  // LoadState or a negative Code
    int fd = -1;
    bool direct_io = false;
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;
    double read_ms = 0;
    std::string message;
};

// Guarded by the store's mutex, except read_chunk.
class Load {
public:
    // INVALID_ARGUMENT, NOT_FOUND, IO, OUT_OF_MEMORY; a file of another size makes a load that has failed as CORRUPT.
    static Status open(Env &env, Arena &arena, LoadRequest request, Load *out);

    // Whether chunks are left that no reader has taken.
    bool has_work() const { return state_ == loading && next_chunk_ < n_chunks(); }
    // Takes the next chunk for a reader, who must report it with complete.
    std::uint64_t take_chunk(double now_ms);
    // Reads a taken chunk. Not guarded: it takes long, and chunks do not overlap.
    Status read_chunk(std::uint64_t chunk);
    void complete(std::uint64_t chunk, const Status &outcome, double now_ms);
    // Ends a load in progress; readers that are at it find out when they report. A failed copy keeps no chunks: no
    // engine computes on it.
    void fail(const Status &why, double now_ms);

    // Nobody wants the copy any more: a load in progress fails as CLOSED, and the chunks go back to the arena, at once
    // or with the last reader's report.
    void release(double now_ms);

    LoadStatus status(double now_ms) const;

private:
    static constexpr std::int32_t loading = static_cast<std::int32_t>(LoadState::loading);

    std::uint64_t n_chunks() const { return request_.chunk_digests.size(); }
    std::uint64_t chunk_size(std::uint64_t chunk) const;
    void give_chunks_back_when_idle();

    LoadRequest request_;
    WeightsFile file_;
    Arena *arena_ = nullptr;
    ArenaChunks chunks_;
    HostCopy copy_;
    bool released_ = false;
    std::int32_t state_ = loading;
    std::string message_;
    std::uint64_t next_chunk_ = 0;
    std::uint64_t ready_chunks_ = 0;  // all chunks before this one are done
    std::vector<bool> done_;
    std::uint64_t bytes_done_ = 0;
    std::uint32_t reading_ = 0;
    double started_ms_ = 0;
    double ended_ms_ = 0;
};

}  // namespace sllm
