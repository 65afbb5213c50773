// The life of one load.
#include "store/load.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/limits.h"

namespace sllm {

namespace {

Status check(const LoadRequest &request) {
    const std::uint64_t align = limits::file_align_bytes;
    if (request.weights_bytes == 0 || request.weights_bytes % align != 0 ||
        request.weights_bytes > limits::weights_bytes) {
        return {Code::invalid_argument, "weights_bytes must be a multiple of 4096 between 4096 and 4 TiB"};
    }
    if (request.chunk_bytes == 0 || request.chunk_bytes % align != 0) {
        return {Code::invalid_argument, "chunk_bytes must be a positive multiple of 4096"};
    }
    const std::uint64_t chunks = (request.weights_bytes - 1) / request.chunk_bytes + 1;
    if (request.chunk_digests.size() != chunks) {
        return {Code::invalid_argument, "n_chunks is " + std::to_string(request.chunk_digests.size()) + ", " +
                                            std::to_string(chunks) + " cover the weights"};
    }
    return {};
}

}  // namespace

Status Load::open(Env &env, Arena &arena, LoadRequest request, Load *out) {
    if (Status s = check(request); !s.ok()) return s;
    Load load;
    if (Status s = WeightsFile::open(env, request.weights_path, &load.file_); !s.ok()) return s;
    load.arena_ = &arena;
    if (Status s = arena.take(request.weights_bytes, &load.chunks_); !s.ok()) return s;
    if (Status s = HostCopy::create(env, request.weights_bytes, arena, load.chunks_.numbers(), &load.copy_); !s.ok()) {
        return s;
    }
    load.request_ = std::move(request);
    load.done_.resize(load.n_chunks());
    *out = std::move(load);
    const auto size = static_cast<std::uint64_t>(out->file_.size());
    if (size != out->request_.weights_bytes) {
        out->fail({Code::corrupt, out->file_.path() + " has " + std::to_string(size) + " bytes, expected " +
                                      std::to_string(out->request_.weights_bytes)},
                  0);
    }
    return {};
}

std::uint64_t Load::chunk_size(std::uint64_t chunk) const {
    return std::min(request_.chunk_bytes, request_.weights_bytes - chunk * request_.chunk_bytes);
}

std::uint64_t Load::take_chunk(double now_ms) {
    if (next_chunk_ == 0) started_ms_ = now_ms;
    reading_++;
    return next_chunk_++;
}

Status Load::read_chunk(std::uint64_t chunk) {
    // A chunk of the checkpoint may lie across several of the arena's; with the usual sizes it is exactly one.
    const std::uint64_t offset = chunk * request_.chunk_bytes;
    const std::uint64_t end = offset + chunk_size(chunk);
    std::vector<std::span<std::uint8_t>> parts;
    for (std::uint64_t at = offset; at < end;) {
        const std::uint64_t inside = at % limits::arena_chunk_bytes;
        const std::uint64_t bytes = std::min(end - at, limits::arena_chunk_bytes - inside);
        parts.emplace_back(arena_->at(chunks_.numbers()[at / limits::arena_chunk_bytes]) + inside, bytes);
        at += bytes;
    }
    return file_.read_chunk(parts, offset, request_.chunk_digests[chunk]);
}

void Load::complete(std::uint64_t chunk, const Status &outcome, double now_ms) {
    reading_--;
    if (state_ == loading && !outcome.ok()) {
        fail(outcome, now_ms);
    } else if (state_ == loading) {
        done_[chunk] = true;
        bytes_done_ += chunk_size(chunk);
        const std::uint64_t before = ready_chunks_;
        while (ready_chunks_ < n_chunks() && done_[ready_chunks_]) ready_chunks_++;
        if (ready_chunks_ != before) {
            copy_.set_ready(std::min(ready_chunks_ * request_.chunk_bytes, request_.weights_bytes));
        }
        if (ready_chunks_ == n_chunks()) {
            state_ = static_cast<std::int32_t>(LoadState::ready);
            ended_ms_ = now_ms;
            copy_.finish();
        }
    }
    give_chunks_back_when_idle();
}

void Load::fail(const Status &why, double now_ms) {
    if (state_ != loading) return;
    state_ = static_cast<std::int32_t>(why.code());
    message_ = why.message();
    ended_ms_ = now_ms;
    copy_.fail(why);
    give_chunks_back_when_idle();
}

void Load::release(double now_ms) {
    released_ = true;
    fail({Code::closed, "the host copy was released while it was loading"}, now_ms);
    give_chunks_back_when_idle();
}

void Load::give_chunks_back_when_idle() {
    if (reading_ == 0 && (released_ || state_ < 0)) chunks_.reset();
}

LoadStatus Load::status(double now_ms) const {
    LoadStatus status;
    status.state = state_;
    status.fd = copy_.fd();
    status.direct_io = file_.mostly_direct();
    status.bytes_done = bytes_done_;
    status.bytes_total = request_.weights_bytes;
    if (next_chunk_ > 0) status.read_ms = (state_ == loading ? now_ms : ended_ms_) - started_ms_;
    status.message = message_;
    return status;
}

}  // namespace sllm
