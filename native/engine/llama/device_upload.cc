// Follower threads, staging and registration.
#include "engine/llama/device_upload.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <thread>

#include "core/limits.h"
#include "ggml.h"

namespace sllm::llama {

namespace {

// Staging memory of a device: enough copies in flight that the link never waits for the processor that fills the next.
constexpr std::size_t staging_slots = 4;
constexpr std::size_t staging_bytes = std::size_t{4} << 20;

struct FreeBackend {
    void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
};
struct FreeBuffer {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};
struct FreeEvent {
    void operator()(ggml_backend_event_t event) const { ggml_backend_event_free(event); }
};
template <typename Handle, typename Free>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Free>;

// A tensor that stands for a whole buffer, so that a copy need not heed where tensors begin.
ggml_tensor whole_buffer(ggml_backend_buffer_t buffer) {
    ggml_tensor tensor{};
    const auto bytes = static_cast<std::int64_t>(ggml_backend_buffer_get_size(buffer));
    tensor.type = GGML_TYPE_I8;
    tensor.ne[0] = bytes;
    tensor.ne[1] = tensor.ne[2] = tensor.ne[3] = 1;
    tensor.nb[0] = 1;
    tensor.nb[1] = tensor.nb[2] = tensor.nb[3] = static_cast<std::size_t>(bytes);
    tensor.buffer = buffer;
    tensor.data = ggml_backend_buffer_get_base(buffer);
    return tensor;
}

// Page-locked memory through which bytes go that the device cannot fetch from where they lie.
class Staging {
public:
    Status open(ggml_backend_dev_t device) {
        memory_.reset(ggml_backend_buft_alloc_buffer(ggml_backend_dev_host_buffer_type(device),
                                                     staging_slots * staging_bytes));
        if (!memory_) return {Code::out_of_memory, "no page-locked memory for copies to a device"};
        for (auto &event : events_) {
            event.reset(ggml_backend_event_new(device));
            if (!event) return {Code::engine, "the device gives no events"};
        }
        return {};
    }

    void send(ggml_backend_t backend, ggml_tensor *target, const std::uint8_t *from, std::uint64_t to,
              std::uint64_t bytes) {
        for (std::uint64_t done = 0; done < bytes;) {
            const std::size_t n = std::min<std::uint64_t>(staging_bytes, bytes - done);
            ggml_backend_event_t event = events_[next_].get();
            auto *slot = static_cast<std::uint8_t *>(ggml_backend_buffer_get_base(memory_.get())) +
                         next_ * staging_bytes;
            ggml_backend_event_synchronize(event);  // returns at once for an event that was never recorded
            std::memcpy(slot, from + done, n);
            ggml_backend_tensor_set_async(backend, target, slot, to + done, n);
            ggml_backend_event_record(event, backend);
            next_ = (next_ + 1) % staging_slots;
            done += n;
        }
    }

private:
    Owned<ggml_backend_buffer_t, FreeBuffer> memory_;
    Owned<ggml_backend_event_t, FreeEvent> events_[staging_slots];
    std::size_t next_ = 0;
};

// Locks the pages of the host copy for the device, chunk by chunk as they fill, where the backend can: the device then
// fetches bytes from the arena itself.
class Registration {
public:
    // No device: nothing is ever locked.
    explicit Registration(ggml_backend_dev_t device) {
        if (device == nullptr) return;
        ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
        const auto find = [&](const char *name) { return ggml_backend_reg_get_proc_address(registry, name); };
        add_ = reinterpret_cast<Add>(find("ggml_backend_register_host_buffer"));
        remove_ = reinterpret_cast<Remove>(find("ggml_backend_unregister_host_buffer"));
        active_ = add_ != nullptr && remove_ != nullptr;
    }
    ~Registration() {
        for (void *chunk : chunks_) remove_(chunk);
    }
    Registration(const Registration &) = delete;
    Registration &operator=(const Registration &) = delete;

    // Whether the chunk is locked now. One refusal ends the attempts: the reason will not change.
    bool lock(const std::uint8_t *chunk, std::size_t bytes) {
        void *address = const_cast<std::uint8_t *>(chunk);  // the backend's interface knows no const; it only reads
        if (std::find(chunks_.begin(), chunks_.end(), address) != chunks_.end()) return true;
        active_ = active_ && add_(address, bytes);
        if (active_) chunks_.push_back(address);
        return active_;
    }

private:
    using Add = bool (*)(void *, std::size_t);
    using Remove = void (*)(void *);
    Add add_ = nullptr;
    Remove remove_ = nullptr;
    bool active_ = false;
    std::vector<void *> chunks_;
};

// One device's side of an upload.
class Follower {
public:
    Follower(const DevicePart &part, const HostCopyView &weights, SharedProgress &progress, std::size_t number)
        : part_(part), weights_(weights), progress_(progress), number_(number) {}

    // On a thread of its own.
    void run() {
        try {
            status_ = follow();
        } catch (const std::exception &error) {
            // Backends throw what their drivers throw.
            status_ = {Code::engine, std::string("a copy to the device ") + ggml_backend_dev_name(part_.device) +
                                         " failed: " + error.what()};
        }
        // Nobody shall wait for what this device does not take any more.
        if (!status_.ok()) progress_.done(number_, UINT64_MAX);
    }

    const Status &status() const { return status_; }
    const UploadFacts &facts() const { return facts_; }

private:
    Status follow() {
        Env &env = Env::posix();
        if (Status s = weights_.map(&source_); !s.ok()) return s;
        backend_.reset(ggml_backend_dev_init(part_.device, nullptr));
        if (!backend_) {
            return {Code::engine, ggml_backend_dev_name(part_.device) + std::string(" cannot be opened")};
        }
        if (Status s = staging_.open(part_.device); !s.ok()) return s;
        // What is overwritten soon is not fetched later: streamed bytes always pass the staging memory.
        Registration registration(weights_.streamed() ? nullptr : part_.device);
        const double started = env.now_ms();
        double idle_since = started;
        Status status = weights_.wait_ready([&](std::uint64_t begin, std::uint64_t end) {
            facts_.wait_ms += env.now_ms() - idle_since;
            send_range(begin, end, registration);
            progress_.done(number_, end);
            idle_since = env.now_ms();
        });
        // Also after a failure: the device may still be reading from memory that goes away.
        ggml_backend_synchronize(backend_.get());
        facts_.upload_ms = env.now_ms() - started;
        return status;
    }

    // Chunks of the arena one after the other: one registration never covers two, as their mappings differ.
    void send_range(std::uint64_t begin, std::uint64_t end, Registration &registration) {
        constexpr std::uint64_t chunk_bytes = limits::arena_chunk_bytes;
        while (begin < end) {
            const std::uint64_t chunk = begin / chunk_bytes * chunk_bytes;
            const std::uint64_t stop = std::min(end, chunk + chunk_bytes);
            send_piece(begin, stop, chunk, registration);
            begin = stop;
        }
    }

    void send_piece(std::uint64_t begin, std::uint64_t end, std::uint64_t chunk, Registration &registration) {
        for (const UploadRun &run : part_.runs) {
            const std::uint64_t first = std::max(begin, run.from);
            const std::uint64_t last = std::min(end, run.from + run.bytes);
            if (first >= last) continue;
            const std::uint64_t chunk_end = std::min<std::uint64_t>(chunk + limits::arena_chunk_bytes, source_.bytes());
            ggml_tensor target = whole_buffer(run.buffer);
            const std::uint64_t to = run.to + (first - run.from);
            if (registration.lock(source_.data() + chunk, chunk_end - chunk)) {
                ggml_backend_tensor_set_async(backend_.get(), &target, source_.data() + first, to, last - first);
            } else {
                staging_.send(backend_.get(), &target, source_.data() + first, to, last - first);
            }
            facts_.bytes += last - first;
        }
    }

    const DevicePart &part_;
    const HostCopyView &weights_;
    SharedProgress &progress_;
    const std::size_t number_;
    Mapping source_;  // outlives what reads from it
    Owned<ggml_backend_t, FreeBackend> backend_;
    Staging staging_;
    Status status_;
    UploadFacts facts_;
};

}  // namespace

std::vector<UploadRun> merge_runs(std::vector<UploadRun> runs) {
    std::sort(runs.begin(), runs.end(), [](const UploadRun &a, const UploadRun &b) {
        return a.buffer != b.buffer ? a.buffer < b.buffer : a.to < b.to;
    });
    std::vector<UploadRun> merged;
    for (const UploadRun &run : runs) {
        UploadRun *last = merged.empty() ? nullptr : &merged.back();
        if (last != nullptr && last->buffer == run.buffer && run.from >= last->from + last->bytes &&
            run.from - last->from == run.to - last->to &&
            run.from - (last->from + last->bytes) < limits::tensor_align_bytes) {
            last->bytes = run.from + run.bytes - last->from;
        } else {
            merged.push_back(run);
        }
    }
    std::sort(merged.begin(), merged.end(), [](const UploadRun &a, const UploadRun &b) { return a.from < b.from; });
    return merged;
}

void SharedProgress::done(std::size_t follower, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_[follower] = bytes;
    weights_.acknowledge(*std::min_element(done_.begin(), done_.end()));
}

Status upload(std::span<const DevicePart> parts, const HostCopyView &weights, SharedProgress &progress,
              UploadFacts *facts) {
    std::vector<std::unique_ptr<Follower>> followers;
    std::vector<std::thread> threads;
    for (const DevicePart &part : parts) {
        followers.push_back(std::make_unique<Follower>(part, weights, progress, followers.size()));
        threads.emplace_back([follower = followers.back().get()] { follower->run(); });
    }
    for (std::thread &thread : threads) thread.join();
    *facts = UploadFacts();
    for (const auto &follower : followers) {
        facts->bytes += follower->facts().bytes;
        facts->upload_ms = std::max(facts->upload_ms, follower->facts().upload_ms);
        facts->wait_ms = std::max(facts->wait_ms, follower->facts().wait_ms);
    }
    for (const auto &follower : followers) {
        if (!follower->status().ok()) return follower->status();
    }
    return {};
}

}  // namespace sllm::llama
