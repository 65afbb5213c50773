// The life of one load.
#include "store/load.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "core/limits.h"

namespace sllm {

namespace {

// A load of so much tells what the disk can do.
constexpr std::uint64_t telling_bytes = std::uint64_t{256} << 20;

Status check(const LoadRequest &request) {
    const std::uint64_t align = limits::file_align_bytes;
    if (request.weights_bytes == 0 || request.weights_bytes % align != 0 ||
        request.weights_bytes > limits::weights_bytes) {
        return {Code::invalid_argument, "weights_bytes must be a multiple of 4096 between 4096 and 4 TiB"};
    }
    if (request.chunk_bytes == 0 || request.chunk_bytes % align != 0) {
        return {Code::invalid_argument, "chunk_bytes must be a positive multiple of 4096"};
    }
    if (request.stream_chunks > 0 &&
        request.stream_chunks * limits::arena_chunk_bytes < request.chunk_bytes + limits::arena_chunk_bytes) {
        return {Code::invalid_argument, "stream_chunks must hold a chunk of the checkpoint and one more"};
    }
    if (request.lanes > limits::devices || (request.lanes > 1 && request.stream_chunks > 0)) {
        return {Code::invalid_argument, "lanes must be at most " + std::to_string(limits::devices) +
                                            ", and one where the weights stream"};
    }
    const std::uint64_t chunks = (request.weights_bytes - 1) / request.chunk_bytes + 1;
    if (request.chunk_digests.size() != chunks) {
        return {Code::invalid_argument, "n_chunks is " + std::to_string(request.chunk_digests.size()) + ", " +
                                            std::to_string(chunks) + " cover the weights"};
    }
    return {};
}

std::string hex(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, value);
    return text;
}

}  // namespace

Status Load::open(Env &env, Arena &arena, LoadRequest request, Load *out) {
    if (Status s = check(request); !s.ok()) return s;
    Load load;
    load.env_ = &env;
    load.arena_ = &arena;
    load.submitted_ms_ = env.now_ms();
    if (Status s = WeightsFile::open(env, request.weights_path, &load.file_); !s.ok()) return s;
    load.pause_ = PrefaultPause(arena);
    const std::uint64_t ring_bytes = request.stream_chunks * limits::arena_chunk_bytes;
    const std::uint64_t bytes = ring_bytes > 0 ? std::min(ring_bytes, request.weights_bytes) : request.weights_bytes;
    if (Status s = arena.take(bytes, &load.chunks_); !s.ok()) return s;
    for (const std::uint32_t chunk : load.chunks_.numbers()) {
        load.memory_.push_back(arena.has_memory(chunk) ? Memory::ready : Memory::cold);
    }
    load.request_ = std::move(request);
    load.done_.resize(load.n_chunks());
    if (Status s = load.open_lanes(); !s.ok()) return s;
    load.plan_faults();
    *out = std::move(load);
    const auto size = static_cast<std::uint64_t>(out->file_.size());
    if (size != out->request_.weights_bytes) {
        out->fail({Code::corrupt, out->file_.path() + " has " + std::to_string(size) + " bytes, expected " +
                                      std::to_string(out->request_.weights_bytes)});
    }
    return {};
}

std::uint64_t Load::chunk_size(std::uint64_t chunk) const {
    return std::min(request_.chunk_bytes, request_.weights_bytes - chunk * request_.chunk_bytes);
}

Status Load::open_lanes() {
    lanes_ = Lanes(n_chunks(), request_.lanes);
    std::vector<std::uint64_t> begins;
    for (std::uint32_t lane = 0; lane < lanes_.count(); lane++) {
        ready_chunks_.push_back(lanes_.begin(lane));
        begins.push_back(lanes_.begin(lane) * request_.chunk_bytes);
    }
    return HostCopy::create(*env_, request_.weights_bytes, begins, *arena_, chunks_.numbers(), &copy_);
}

// Memory is needed in the order of the reads; a chunk of the checkpoint may lie across several of the arena's, or
// several in one.
void Load::plan_faults() {
    std::vector<bool> planned(chunks_.numbers().size());
    for (std::uint64_t n = 0; n < n_chunks() && fault_order_.size() < planned.size(); n++) {
        const std::uint64_t offset = lanes_.nth(n) * request_.chunk_bytes;
        const std::uint64_t last = offset + chunk_size(lanes_.nth(n)) - 1;
        constexpr std::uint64_t part_bytes = limits::arena_chunk_bytes;
        for (std::uint64_t part = offset / part_bytes; part <= last / part_bytes; part++) {
            const std::size_t place = part % planned.size();
            if (!planned[place]) fault_order_.push_back(place);
            planned[place] = true;
        }
    }
}

bool Load::has_blocks() const { return has_next() && place_is_free(); }

bool Load::awaits_engine() const { return has_next() && !place_is_free(); }

std::uint64_t Load::next_offset() const {
    if (open_chunks_.empty()) return lanes_.nth(begun_chunks_) * request_.chunk_bytes;
    const ChunkRead &chunk = *open_chunks_.front();
    return chunk.block(chunk.next()).offset;
}

bool Load::place_is_free() const {
    const std::uint64_t part = next_offset() / limits::arena_chunk_bytes;
    const std::size_t ring = chunks_.numbers().size();
    return part < ring || part < copy_.acknowledged() / limits::arena_chunk_bytes + ring;
}

std::size_t Load::place_of(std::uint64_t offset) const {
    return offset / limits::arena_chunk_bytes % chunks_.numbers().size();
}

// Cuts a chunk into blocks. A chunk of the checkpoint may lie across several of the arena's; with the usual sizes it is
// exactly one.
std::shared_ptr<ChunkRead> Load::begin_chunk(std::uint64_t chunk, std::uint32_t block_bytes) {
    const std::uint64_t offset = chunk * request_.chunk_bytes;
    const std::uint64_t end = offset + chunk_size(chunk);
    std::vector<Block> blocks;
    for (std::uint64_t at = offset; at < end;) {
        const std::uint64_t inside = at % limits::arena_chunk_bytes;
        const std::uint64_t bytes =
            std::min({end - at, limits::arena_chunk_bytes - inside, std::uint64_t{block_bytes}});
        std::uint8_t *out = arena_->at(chunks_.numbers()[place_of(at)]) + inside;
        blocks.push_back({out, at, static_cast<std::uint32_t>(bytes)});
        at += bytes;
    }
    const bool cached = file_.is_cached(end - offset, offset);
    return std::make_shared<ChunkRead>(chunk, request_.chunk_digests[chunk], std::move(blocks), cached);
}

bool Load::next_block(std::uint32_t block_bytes, BlockRead *out) {
    if (!has_blocks()) return false;
    if (open_chunks_.empty()) open_chunks_.push_back(begin_chunk(lanes_.nth(begun_chunks_++), block_bytes));
    const std::shared_ptr<ChunkRead> &chunk = open_chunks_.front();
    const std::size_t index = place_of(chunk->block(chunk->next()).offset);
    if (memory_[index] != Memory::ready) {
        if (reading_ == 0 && waiting_since_ms_ < 0) waiting_since_ms_ = env_->now_ms();
        return false;
    }
    if (waiting_since_ms_ >= 0) {
        trace_.memory_wait_ms += env_->now_ms() - waiting_since_ms_;
        waiting_since_ms_ = -1;
    }
    if (trace_.first_read_ms == 0) trace_.first_read_ms = since_submitted();
    *out = {chunk, chunk->take(), chunks_.numbers()[index]};
    if (chunk->all_taken()) open_chunks_.pop_front();
    reading_++;
    return true;
}

void Load::block_arrived(const BlockRead &read, Source source) {
    reading_--;
    const std::uint64_t bytes = read.chunk->block(read.block).bytes;
    (source == Source::direct   ? trace_.direct_bytes
     : source == Source::cached ? trace_.cached_bytes
                                : trace_.buffered_bytes) += bytes;
    if (loading()) {
        read.chunk->arrive(read.block);
        bytes_arrived_ += bytes;
        if (bytes_arrived_ == request_.weights_bytes) trace_.last_read_ms = since_submitted();
    }
    give_chunks_back_when_idle();
}

void Load::block_dropped(const Status &why) {
    reading_--;
    fail(why);
    give_chunks_back_when_idle();
}

bool Load::needs_memory() const {
    return std::find(memory_.begin(), memory_.end(), Memory::cold) != memory_.end();
}

bool Load::next_fault(std::size_t *index) {
    if (!loading()) return false;
    while (next_fault_ < fault_order_.size() && memory_[fault_order_[next_fault_]] != Memory::cold) next_fault_++;
    if (next_fault_ == fault_order_.size()) return false;
    *index = fault_order_[next_fault_];
    memory_[*index] = Memory::faulting;
    busy_++;
    return true;
}

void Load::fault_done(std::size_t index, double cpu_ms) {
    busy_--;
    memory_[index] = Memory::ready;
    trace_.fault_ms += cpu_ms;
    give_chunks_back_when_idle();
}

void Load::digest_done(const std::shared_ptr<ChunkRead> &chunk, std::size_t blocks, double cpu_ms) {
    busy_--;
    trace_.digest_ms += cpu_ms;
    chunk->end_claim(blocks);
    if (loading() && chunk->complete()) chunk_digested(chunk);
    give_chunks_back_when_idle();
}

void Load::chunk_digested(const std::shared_ptr<ChunkRead> &chunk) {
    const std::uint64_t found = chunk->found();
    if (found == chunk->expected()) {
        chunk_verified(*chunk);
    } else if (chunk->start_over()) {
        // Memory and buses flip bits, and so may the page cache: a second read from the disk tells a bad transfer from
        // bad bytes on it.
        trace_.rereads++;
        bytes_arrived_ -= chunk->bytes();
        open_chunks_.push_front(chunk);
    } else {
        fail({Code::corrupt, file_.path() + ": the " + std::to_string(chunk->bytes()) + " bytes at offset " +
                                 std::to_string(chunk->offset()) + " have digest " + hex(found) + ", expected " +
                                 hex(chunk->expected())});
    }
}

void Load::chunk_verified(const ChunkRead &chunk) {
    if (bytes_done_ == 0) trace_.first_verified_ms = since_submitted();
    done_[chunk.number()] = true;
    bytes_done_ += chunk.bytes();
    const std::uint32_t lane = lanes_.lane_of(chunk.number());
    std::uint64_t &ready = ready_chunks_[lane];
    const std::uint64_t before = ready;
    while (ready < lanes_.begin(lane + 1) && done_[ready]) ready++;
    if (ready != before) copy_.set_ready(lane, std::min(ready * request_.chunk_bytes, request_.weights_bytes));
    if (++done_chunks_ == n_chunks()) {
        end(static_cast<std::int32_t>(LoadState::ready));
        copy_.finish();
    }
}

void Load::fail(const Status &why) {
    if (!loading()) return;
    end(static_cast<std::int32_t>(why.code()));
    message_ = why.message();
    open_chunks_.clear();
    copy_.fail(why);
    give_chunks_back_when_idle();
}

void Load::release() {
    released_ = true;
    fail({Code::closed, "the host copy was released while it was loading"});
    give_chunks_back_when_idle();
}

void Load::end(std::int32_t state) {
    state_ = state;
    trace_.ended_ms = since_submitted();
    pause_ = {};
}

void Load::give_chunks_back_when_idle() {
    if (reading_ == 0 && busy_ == 0 && (released_ || state_ < 0)) chunks_.reset();
}

double Load::disk_bytes_per_second() const {
    const double ms = trace_.last_read_ms - trace_.first_read_ms;
    const bool tells = state_ == static_cast<std::int32_t>(LoadState::ready) && ms > 0 &&
                       trace_.memory_wait_ms < ms / 10 && trace_.cached_bytes == 0 &&
                       request_.stream_chunks == 0 && request_.weights_bytes >= telling_bytes;
    return tells ? static_cast<double>(request_.weights_bytes) / ms * 1e3 : 0;
}

LoadStatus Load::status() const {
    LoadStatus status;
    status.state = state_;
    status.fd = copy_.fd();
    status.direct_io = trace_.direct_bytes > trace_.buffered_bytes + trace_.cached_bytes;
    status.bytes_done = bytes_done_;
    status.bytes_total = request_.weights_bytes;
    if (trace_.first_read_ms > 0) {
        status.read_ms = (loading() ? since_submitted() : trace_.ended_ms) - trace_.first_read_ms;
    }
    status.trace = trace_;
    if (waiting_since_ms_ >= 0) status.trace.memory_wait_ms += env_->now_ms() - waiting_since_ms_;
    status.message = message_;
    return status;
}

}  // namespace sllm
