// The volume's thread: fills the queue, takes results, continues short reads.
#include "store/volume.h"

#include <algorithm>
#include <cerrno>

#include "core/limits.h"

namespace sllm {

namespace {

// Of the loads that have blocks to read: how many share, and every how many turns the second one is served.
constexpr std::size_t sharing_loads = 2;
constexpr std::uint32_t turns = 4;

// A read that was interrupted this often in a row without bringing a byte has failed.
constexpr std::uint32_t fruitless_attempts = 100;

bool refuses_direct(std::int64_t result) { return result == -EINVAL || result == -EOPNOTSUPP || result == -EFAULT; }

}  // namespace

Volume::Volume(Env &env, std::int64_t file_system, const ReadSettings &settings, std::mutex &mutex,
               Listener &listener)
    : env_(env), file_system_(file_system), mutex_(mutex), listener_(listener), settings_(settings) {
    thread_ = std::thread([this] { read_loop(); });
}

Volume::~Volume() { thread_.join(); }

void Volume::add(std::shared_ptr<Load> load) {
    loads_.push_back(std::move(load));
    work_.notify_all();
}

void Volume::wake() { work_.notify_all(); }

void Volume::stop() {
    stopping_ = true;
    work_.notify_all();
}

VolumeStatus Volume::status() const {
    VolumeStatus status;
    status.file_system = file_system_;
    status.settings = settings_;
    for (const auto &load : loads_) {
        status.queued_bytes += load->bytes_left();
        if (load->loading()) status.queued_loads++;
    }
    return status;
}

std::uint32_t Volume::depth() const {
    const std::uint64_t depth = settings_.in_flight_bytes / settings_.block_bytes;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(depth, 1, limits::reads_in_flight));
}

bool Volume::open_queue() {
    if (queue_ != nullptr) return true;
    if (env_.make_read_queue(settings_.method, depth(), 0, &queue_) < 0) {
        // Without io_uring, or where it is forbidden, threads do the same with more processor time.
        settings_.method = ReadMethod::threads;
        if (env_.make_read_queue(settings_.method, depth(), 0, &queue_) < 0) return false;
    }
    flights_.resize(depth());
    for (std::uint64_t tag = 0; tag < flights_.size(); tag++) free_flights_.push_back(tag);
    return true;
}

void Volume::read_loop() {
    std::vector<ReadResult> results;
    std::unique_lock lock(mutex_);
    for (;;) {
        forget_ended();
        if (stopping_ && in_flight_ == 0) return;
        fill();
        if (in_flight_ == 0) {
            if (!stopping_) work_.wait(lock);
            continue;
        }
        lock.unlock();
        queue_->wait(&results);
        lock.lock();
        for (const ReadResult &result : results) take(result);
        results.clear();
    }
}

void Volume::forget_ended() {
    std::erase_if(loads_, [](const std::shared_ptr<Load> &load) { return !load->loading(); });
}

void Volume::fill() {
    if (stopping_ || loads_.empty() || !open_queue()) return;
    while (!free_flights_.empty()) {
        Flight flight;
        if (!next_read(&flight)) return;
        const std::uint64_t tag = free_flights_.back();
        free_flights_.pop_back();
        flights_[tag] = std::move(flight);
        in_flight_++;
        begin(tag);
    }
}

bool Volume::next_read(Flight *out) {
    std::vector<std::shared_ptr<Load>> sharing;
    for (const auto &load : loads_) {
        if (load->has_blocks()) sharing.push_back(load);
        if (sharing.size() == sharing_loads) break;
    }
    if (turn_++ % turns == turns - 1) std::reverse(sharing.begin(), sharing.end());
    for (const auto &load : sharing) {
        if (!load->next_block(settings_.block_bytes, &out->read)) continue;
        out->load = load;
        return true;
    }
    return false;
}

void Volume::begin(std::uint64_t tag) {
    Flight &flight = flights_[tag];
    const WeightsFile &file = flight.load->file();
    const ChunkRead &chunk = *flight.read.chunk;
    const Block &block = chunk.block(flight.read.block);
    const std::uint64_t offset = block.offset + flight.done;
    // After a short read the rest may not be aligned any more, which only the page cache can serve.
    const bool direct = !chunk.cached() && file.has_direct() && offset % limits::file_align_bytes == 0;
    flight.source = direct ? Source::direct : chunk.cached() ? Source::cached : Source::buffered;
    ReadOp op;
    op.fd = file.fd(direct);
    op.out = block.out + flight.done;
    op.bytes = block.bytes - flight.done;
    op.offset = offset;
    op.tag = tag;
    op.blocking = !direct;
    queue_->add(op);
}

void Volume::take(const ReadResult &result) {
    Flight &flight = flights_[result.tag];
    const Block &block = flight.read.chunk->block(flight.read.block);
    const std::uint64_t offset = block.offset + flight.done;
    const std::int64_t n = result.result;
    if (n > 0) {
        flight.done += static_cast<std::uint32_t>(n);
        flight.fruitless = 0;
        if (flight.done == block.bytes) return end(result.tag, {});
    } else if (n == 0) {
        return end(result.tag, {Code::corrupt, flight.load->file().path() + " ends at byte " + std::to_string(offset) +
                                                   ", expected at least " +
                                                   std::to_string(block.offset + block.bytes)});
    } else if (flight.source == Source::direct && refuses_direct(n)) {
        flight.load->file().refuse_direct();
    } else if ((n != -EINTR && n != -EAGAIN) || ++flight.fruitless == fruitless_attempts) {
        return end(result.tag, system_status("read " + flight.load->file().path() + " at offset " +
                                                 std::to_string(offset),
                                             static_cast<int>(-n)));
    }
    if (!flight.load->loading()) return end(result.tag, {Code::closed, "the load has ended"});
    flight.load->count_retry();
    begin(result.tag);
}

void Volume::end(std::uint64_t tag, const Status &outcome) {
    const Flight flight = std::exchange(flights_[tag], {});
    free_flights_.push_back(tag);
    in_flight_--;
    if (!outcome.ok()) {
        flight.load->block_dropped(outcome);
        listener_.on_failure();
        return;
    }
    flight.load->block_arrived(flight.read, flight.source);
    listener_.on_blocks(flight.load, flight.read.chunk);
}

}  // namespace sllm
