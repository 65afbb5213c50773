// Creation, publication and reading of host copies.
#include "store/host_copy.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/limits.h"
#include "io/address_space.h"

namespace sllm {

namespace {

// A waiter looks this often whether the loader still lives; wake-ups come through the futex.
constexpr std::uint64_t loader_check_us = 500'000;

constexpr std::uint64_t chunk_bytes = limits::arena_chunk_bytes;

std::uint64_t chunks_of(std::uint64_t bytes) { return (bytes + chunk_bytes - 1) / chunk_bytes; }

// Numbers the copies of this process.
std::atomic<std::uint64_t> copies_made{0};

// Of the file that describes a copy.
std::uint64_t file_bytes_of(std::uint64_t bytes) {
    const std::uint64_t table = chunks_of(bytes) * sizeof(std::uint32_t);
    const std::uint64_t align = limits::file_align_bytes;
    return host_copy_control_bytes + (table + align - 1) / align * align;
}

Status map_file(Env &env, int fd, std::uint64_t bytes, int protection, Mapping *out) {
    void *address = nullptr;
    const int error = env.map(nullptr, bytes, protection, MAP_SHARED, fd, 0, &address);
    if (error < 0) return system_status("map " + std::to_string(bytes) + " bytes of a host copy", -error);
    *out = Mapping(env, address, bytes);
    return {};
}

}  // namespace

Status HostCopy::create(Env &env, std::uint64_t bytes, std::span<const std::uint64_t> lanes, const Arena &arena,
                        const std::vector<std::uint32_t> &chunks, HostCopy *out) {
    HostCopy copy;
    copy.env_ = &env;
    const std::uint64_t file_bytes = file_bytes_of(bytes);
    const int fd = env.create_memory("sllm-host-copy", file_bytes);
    if (fd < 0) return system_status("create " + std::to_string(file_bytes) + " bytes of shared memory", -fd);
    copy.fd_ = OwnedFd(env, fd);
    if (Status s = map_file(env, fd, file_bytes, PROT_READ | PROT_WRITE, &copy.file_); !s.ok()) return s;
    // A file that could be cut short would end every engine that mapped it with SIGBUS.
    if (const int error = env.seal(fd, F_SEAL_SHRINK | F_SEAL_GROW); error < 0) {
        return system_status("seal the size of a host copy", -error);
    }
    // Only the mapping above can write from now on. Old kernels lack the seal; the copy works without.
    env.seal(fd, F_SEAL_FUTURE_WRITE);
    const std::uint64_t parts = chunks_of(bytes);
    auto *table = reinterpret_cast<std::uint32_t *>(copy.file_.data() + host_copy_control_bytes);
    for (std::uint64_t part = 0; part < parts; part++) table[part] = chunks[part % chunks.size()];
    copy.control_ = new (copy.file_.data()) HostCopyControl{};
    copy.control_->magic = host_copy_magic;
    copy.control_->version = host_copy_version;
    copy.control_->loader_pid = env.process_id();
    copy.control_->bytes_total = bytes;
    copy.control_->lane_count = static_cast<std::uint32_t>(lanes.size());
    for (std::size_t lane = 0; lane < lanes.size(); lane++) {
        copy.control_->lanes[lane].begin = lanes[lane];
        copy.control_->lanes[lane].ready = lanes[lane];
    }
    copy.control_->arena_fd = arena.fd();
    copy.control_->chunk_count = static_cast<std::uint32_t>(parts);
    copy.control_->arena_chunk_bytes = chunk_bytes;
    copy.control_->number = ++copies_made;
    copy.control_->ack_fd = -1;
    if (chunks.size() < parts) {
        if (Status s = copy.create_ack_page(static_cast<std::uint32_t>(chunks.size())); !s.ok()) return s;
    }
    *out = std::move(copy);
    return {};
}

Status HostCopy::create_ack_page(std::uint32_t ring_chunks) {
    const int fd = env_->create_memory("sllm-acknowledged", host_copy_control_bytes);
    if (fd < 0) return system_status("create a page of shared memory", -fd);
    ack_fd_ = OwnedFd(*env_, fd);
    if (Status s = map_file(*env_, fd, host_copy_control_bytes, PROT_READ, &ack_page_); !s.ok()) return s;
    int error = env_->share_writable(fd);
    // Cut short, it would end this process.
    if (error == 0) error = env_->seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    if (error < 0) return system_status("share a page of memory", -error);
    control_->ack_fd = fd;
    control_->ring_chunks = ring_chunks;
    return {};
}

std::uint64_t HostCopy::acknowledged() const {
    if (!ack_page_.valid()) return 0;
    const auto *page = reinterpret_cast<const HostCopyAck *>(ack_page_.data());
    return std::min(page->bytes.load(std::memory_order_acquire),
                    control_->lanes[0].ready.load(std::memory_order_relaxed));
}

void HostCopy::set_ready(std::uint32_t lane, std::uint64_t end) {
    control_->lanes[lane].ready.store(end, std::memory_order_release);
    control_->changes.fetch_add(1, std::memory_order_release);
    env_->futex_wake_all(&control_->changes);
}

void HostCopy::finish() { end(static_cast<std::int32_t>(LoadState::ready)); }

void HostCopy::fail(const Status &why) {
    const std::size_t n = std::min(why.message().size(), sizeof control_->message - 1);
    std::memcpy(control_->message, why.message().data(), n);
    control_->message[n] = '\0';
    end(static_cast<std::int32_t>(why.code()));
}

void HostCopy::end(std::int32_t state) {
    control_->state.store(state, std::memory_order_release);
    control_->changes.fetch_add(1, std::memory_order_release);
    env_->futex_wake_all(&control_->changes);
}

Status HostCopyView::open(Env &env, const std::string &path, std::uint64_t bytes, HostCopyView *out) {
    HostCopyView view;
    view.env_ = &env;
    view.path_ = path;
    view.bytes_ = bytes;
    const OwnedFd fd(env, env.open(path.c_str(), O_RDONLY));
    if (!fd.valid()) return system_status("open " + path, -fd.get());
    const std::int64_t size = env.file_size(fd.get());
    if (size < 0) return system_status("stat " + path, static_cast<int>(-size));
    const std::uint64_t expected = file_bytes_of(bytes);
    if (static_cast<std::uint64_t>(size) != expected) {
        return {Code::corrupt, path + " has " + std::to_string(size) + " bytes, a host copy of " +
                                   std::to_string(bytes) + " would have " + std::to_string(expected)};
    }
    if (Status s = map_file(env, fd.get(), expected, PROT_READ, &view.file_); !s.ok()) return s;
    view.control_ = reinterpret_cast<const HostCopyControl *>(view.file_.data());
    const HostCopyControl &control = *view.control_;
    if (control.magic != host_copy_magic || control.version != host_copy_version || control.bytes_total != bytes ||
        control.arena_chunk_bytes != chunk_bytes || control.chunk_count != chunks_of(bytes) ||
        control.lane_count == 0 || control.lane_count > limits::devices) {
        return {Code::corrupt, path + " is no host copy of " + std::to_string(bytes) + " bytes, version " +
                                   std::to_string(host_copy_version)};
    }
    if (Status s = view.open_arena(); !s.ok()) return s;
    if (Status s = view.open_ack_page(); !s.ok()) return s;
    *out = std::move(view);
    return {};
}

Status HostCopyView::open_arena() {
    if (Status s = open_beside(control_->arena_fd, O_RDONLY, &arena_); !s.ok()) return s;
    const std::int64_t size = env_->file_size(arena_.get());
    if (size < 0) return system_status("stat the arena of " + path_, static_cast<int>(-size));
    const std::uint64_t arena_chunks = static_cast<std::uint64_t>(size) / chunk_bytes;
    chunks_.resize(control_->chunk_count);
    std::memcpy(chunks_.data(), file_.data() + host_copy_control_bytes, chunks_.size() * sizeof(std::uint32_t));
    // Pages beyond the end of a file end the process that touches them.
    if (std::any_of(chunks_.begin(), chunks_.end(), [&](std::uint32_t c) { return c >= arena_chunks; })) {
        return {Code::corrupt, path_ + " names chunks beyond the end of the arena"};
    }
    return {};
}

bool HostCopyView::same_copy(const HostCopyView &other) const {
    return control_->loader_pid == other.control_->loader_pid && control_->number == other.control_->number;
}

Status HostCopyView::open_ack_page() {
    if (control_->ack_fd < 0) return {};
    OwnedFd fd;
    if (Status s = open_beside(control_->ack_fd, O_RDWR, &fd); !s.ok()) return s;
    if (env_->file_size(fd.get()) != static_cast<std::int64_t>(host_copy_control_bytes)) {
        return {Code::corrupt, path_ + " has no page to acknowledge on"};
    }
    constexpr int protection = PROT_READ | PROT_WRITE;
    if (Status s = map_file(*env_, fd.get(), host_copy_control_bytes, protection, &ack_page_); !s.ok()) return s;
    ack_ = reinterpret_cast<HostCopyAck *>(ack_page_.data());
    return {};
}

// Another descriptor of the process that loads.
Status HostCopyView::open_beside(std::int32_t fd, int flags, OwnedFd *out) const {
    const std::string path = path_.substr(0, path_.rfind('/') + 1) + std::to_string(fd);
    *out = OwnedFd(*env_, env_->open(path.c_str(), flags));
    return out->valid() ? Status() : system_status("open " + path + " beside " + path_, -out->get());
}

void HostCopyView::acknowledge(std::uint64_t bytes) const {
    if (ack_ != nullptr) ack_->bytes.store(bytes, std::memory_order_release);
}

Status HostCopyView::wait_ready(const std::function<void(std::uint64_t begin, std::uint64_t end)> &on_range) const {
    const std::span lanes(control_->lanes, control_->lane_count);
    std::vector<std::uint64_t> known;
    for (const auto &lane : lanes) known.push_back(std::min(lane.begin, bytes_));
    for (;;) {
        const std::uint32_t changes = control_->changes.load(std::memory_order_acquire);
        const std::int32_t state = control_->state.load(std::memory_order_acquire);
        for (std::size_t i = 0; i < lanes.size(); i++) {
            // A control page that lies about its size must not lead anybody beyond the mapping.
            const std::uint64_t ready = std::min(lanes[i].ready.load(std::memory_order_acquire), bytes_);
            if (ready > known[i]) on_range(known[i], ready);
            known[i] = std::max(known[i], ready);
        }
        if (state == static_cast<std::int32_t>(LoadState::ready)) return {};
        if (state < 0) {
            const char *end = std::find(control_->message, control_->message + sizeof control_->message, '\0');
            return {static_cast<Code>(state), std::string(control_->message, end)};
        }
        if (!env_->process_exists(control_->loader_pid)) {
            return {Code::io, "the process that loaded " + path_ + " ended before the last byte"};
        }
        env_->futex_wait(&control_->changes, changes, loader_check_us);
    }
}

Status HostCopyView::map_at(void *address, std::uint64_t bytes) const {
    if (bytes > bytes_) return {Code::corrupt, path_ + " is shorter than the model's weights"};
    const std::uint64_t n = chunks_of(bytes);
    for (std::uint64_t first = 0, next = 0; first < n; first = next) {
        // One mapping for a run of adjacent chunks.
        for (next = first + 1; next < n && chunks_[next] == chunks_[next - 1] + 1;) next++;
        const std::uint64_t from = first * chunk_bytes;
        // Whole huge pages: those of the system's reserve come in no other way, and a chunk has no less.
        const std::uint64_t length = std::min(next * chunk_bytes, in_huge_pages(bytes)) - from;
        void *mapped = nullptr;
        const int error = env_->map(static_cast<std::uint8_t *>(address) + from, length, PROT_READ,
                                    MAP_SHARED | MAP_FIXED, arena_.get(), chunks_[first] * chunk_bytes, &mapped);
        if (error < 0) return system_status("map " + path_, -error);
    }
    return {};
}

Status HostCopyView::map(Mapping *out) const {
    if (Status s = reserve_addresses(*env_, bytes_, out); !s.ok()) return s;
    return map_at(out->data(), bytes_);
}

}  // namespace sllm
