// The volume's thread: fills the queue, takes results, continues short reads.
#include "store/volume.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "core/limits.h"

namespace sllm {

namespace {

// Of the loads that have blocks to read: how many share, and every how many turns the second one is served.
constexpr std::size_t sharing_loads = 2;
constexpr std::uint32_t turns = 4;

// A probe reads this long in each way, so that all of them take less than half a second, and begins when nothing has
// been to do for a while.
constexpr double probe_slice_ms = 40;
constexpr std::chrono::seconds quiet_before_probe{2};

// A read that was interrupted this often in a row without bringing a byte has failed.
constexpr std::uint32_t fruitless_attempts = 100;

// How often a streamed copy is looked at whose engine is slower than the disk: it acknowledges in memory, from another
// process. A chunk takes several times as long to read.
constexpr std::chrono::milliseconds engine_poll{1};

bool refuses_direct(std::int64_t result) { return result == -EINVAL || result == -EOPNOTSUPP || result == -EFAULT; }

}  // namespace

Volume::Volume(Env &env, Arena &arena, std::int64_t file_system, const VolumeOptions &options, std::mutex &mutex,
               Listener &listener)
    : env_(env),
      arena_(arena),
      file_system_(file_system),
      options_(options),
      mutex_(mutex),
      listener_(listener),
      settings_(options.settings) {
    ProbeResult known;
    if (options.probe && !options.state_file.empty() && from_text(env.read_text(options.state_file), &known)) {
        settings_ = known.settings;
        bytes_per_second_ = known.bytes_per_second;
        probed_ = true;
    }
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
    status.probed = probed_;
    status.bytes_per_second = bytes_per_second_;
    const auto registered = std::count(registered_.begin(), registered_.end(), true);
    status.registered_bytes = static_cast<std::uint64_t>(registered) * limits::arena_chunk_bytes;
    for (const auto &load : loads_) {
        status.queued_bytes += load->bytes_left();
        if (load->loading()) status.queued_loads++;
    }
    return status;
}

bool Volume::open_queue() {
    if (queue_ != nullptr) return true;
    const std::uint32_t slots = options_.register_memory ? arena_.chunks() : 0;
    if (env_.make_read_queue(settings_.method, settings_.depth(), slots, &queue_) < 0) {
        // Without io_uring, or where it is forbidden, threads do the same with more processor time.
        settings_.method = ReadMethod::threads;
        if (env_.make_read_queue(settings_.method, settings_.depth(), 0, &queue_) < 0) return false;
    }
    if (slots > 0) env_.raise_memory_lock_limit();
    registered_.assign(slots, false);
    may_register_ = slots > 0;
    flights_.resize(settings_.depth());
    for (std::uint64_t tag = 0; tag < flights_.size(); tag++) free_flights_.push_back(tag);
    return true;
}

void Volume::close_queue() {
    queue_.reset();
    registered_.clear();
    flights_.clear();
    free_flights_.clear();
}

void Volume::register_memory(std::uint32_t chunk) {
    // Registered small pages make requests smaller still, which costs more than looking the pages up.
    if (!may_register_ || registered_[chunk] || !arena_.is_huge(chunk)) return;
    // False past the limit of locked memory, or with a kernel that cannot: what is registered stays of use, the rest of
    // the arena is read into without.
    may_register_ = queue_->register_buffer(chunk, {arena_.at(chunk), limits::arena_chunk_bytes});
    registered_[chunk] = may_register_;
}

void Volume::forget_memory(std::uint32_t chunk) {
    if (registered_.empty() || !registered_[chunk]) return;
    queue_->forget_buffer(chunk);
    registered_[chunk] = false;
}

void Volume::read_loop() {
    std::vector<ReadResult> results;
    std::unique_lock lock(mutex_);
    for (;;) {
        forget_ended();
        if (stopping_ && in_flight_ == 0) return;
        fill();
        if (in_flight_ == 0) {
            if (stopping_) continue;
            if (may_read()) {
                rest(lock);
            } else {
                wait_for_rate(lock);
            }
            continue;
        }
        lock.unlock();
        queue_->wait(&results);
        lock.lock();
        for (const ReadResult &result : results) take(result);
        results.clear();
    }
}

bool Volume::may_read() {
    return options_.bytes_per_second <= 0 || env_.now_ms() >= next_read_ms_;
}

void Volume::wait_for_rate(std::unique_lock<std::mutex> &lock) {
    const double wait_ms = std::max(1.0, next_read_ms_ - env_.now_ms());
    work_.wait_for(lock, std::chrono::duration<double, std::milli>(wait_ms));
}

void Volume::wait_for_work(std::unique_lock<std::mutex> &lock) {
    const auto awaits = [](const auto &load) { return load->awaits_engine(); };
    const bool polls = std::any_of(loads_.begin(), loads_.end(), awaits);
    if (polls) {
        work_.wait_for(lock, engine_poll);
    } else {
        work_.wait(lock);
    }
}

void Volume::forget_ended() {
    for (const auto &load : loads_) {
        const double rate = load->disk_bytes_per_second();
        if (rate > 0) bytes_per_second_ = rate;
        if (options_.probe && !probed_ && rate > 0) probe_path_ = load->file().path();
    }
    std::erase_if(loads_, [](const std::shared_ptr<Load> &load) { return !load->loading(); });
}

void Volume::rest(std::unique_lock<std::mutex> &lock) {
    if (probe_path_.empty() || !loads_.empty()) {
        wait_for_work(lock);
        return;
    }
    // The next load may be about to come; it is not to meet the probe.
    if (work_.wait_for(lock, quiet_before_probe) == std::cv_status::no_timeout) return;
    const auto undisturbed = [this] {
        const std::lock_guard guard(mutex_);
        return !stopping_ && loads_.empty();
    };
    const std::string path = std::exchange(probe_path_, {});
    close_queue();
    lock.unlock();
    ProbeResult found;
    const Status outcome = probe(env_, path, probe_candidates(), probe_slice_ms, undisturbed, &found);
    const bool finished = outcome.ok() && undisturbed();
    // Without the file the next run probes again, which is all that is lost.
    if (finished && !options_.state_file.empty()) env_.write_text(options_.state_file, to_text(found));
    lock.lock();
    if (!finished) return;
    settings_ = found.settings;
    bytes_per_second_ = found.bytes_per_second;
    probed_ = true;
}

void Volume::fill() {
    if (stopping_ || loads_.empty() || !open_queue()) return;
    while (!free_flights_.empty() && may_read()) {
        Flight flight;
        if (!next_read(&flight)) return;
        if (options_.bytes_per_second > 0) {
            // Time that was not used is lost: a quiet disk saves nothing up for the next load.
            const double bytes = flight.read.chunk->block(flight.read.block).bytes;
            next_read_ms_ = std::max(next_read_ms_, env_.now_ms()) + 1000 * bytes / options_.bytes_per_second;
        }
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
    const bool aligned = offset % limits::file_align_bytes == 0;
    const bool direct = settings_.direct && file.has_direct() && !chunk.cached() && aligned;
    flight.source = direct ? Source::direct : chunk.cached() ? Source::cached : Source::buffered;
    ReadOp op;
    op.fd = file.fd(direct);
    op.out = block.out + flight.done;
    op.bytes = block.bytes - flight.done;
    op.offset = offset;
    op.tag = tag;
    op.blocking = !direct;
    if (direct) register_memory(flight.read.arena_chunk);
    op.slot = flight.read.arena_chunk;
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
