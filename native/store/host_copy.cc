// Creation, publication and reading of host copies.
#include "store/host_copy.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace sllm {

namespace {

// A waiter looks this often whether the loader still lives; wake-ups come through the futex.
constexpr std::uint64_t loader_check_us = 500'000;

Status map_region(Env &env, int fd, std::uint64_t offset, std::uint64_t bytes, int protection, Mapping *out) {
    void *address = nullptr;
    const int error = env.map(nullptr, bytes, protection, MAP_SHARED, fd, offset, &address);
    if (error < 0) return system_status("map " + std::to_string(bytes) + " bytes of a host copy", -error);
    *out = Mapping(env, address, bytes);
    return {};
}

}  // namespace

Status HostCopy::create(Env &env, std::uint64_t bytes, HostCopy *out) {
    HostCopy copy;
    copy.env_ = &env;
    const int fd = env.create_memory("sllm-host-copy", bytes + host_copy_control_bytes);
    if (fd < 0) return system_status("create " + std::to_string(bytes) + " bytes of shared memory", -fd);
    copy.fd_ = OwnedFd(env, fd);
    // A copy that could be cut short would end every engine that mapped it with SIGBUS.
    if (const int error = env.seal(fd, F_SEAL_SHRINK | F_SEAL_GROW); error < 0) {
        return system_status("seal the size of a host copy", -error);
    }
    constexpr int read_write = PROT_READ | PROT_WRITE;
    if (Status s = map_region(env, fd, bytes, host_copy_control_bytes, read_write, &copy.control_page_); !s.ok()) {
        return s;
    }
    if (Status s = map_region(env, fd, 0, bytes, read_write, &copy.data_); !s.ok()) return s;
    // Huge pages make the first touch of the copy cheaper where the system has them for shared memory; where it has
    // not, nothing changes, so the answer does not matter.
    env.advise(copy.data_.data(), copy.data_.bytes(), MADV_HUGEPAGE);
    copy.control_ = new (copy.control_page_.data()) HostCopyControl{};
    copy.control_->magic = host_copy_magic;
    copy.control_->version = host_copy_version;
    copy.control_->loader_pid = env.process_id();
    copy.control_->bytes_total = bytes;
    *out = std::move(copy);
    return {};
}

void HostCopy::set_ready(std::uint64_t bytes) {
    control_->bytes_ready.store(bytes, std::memory_order_release);
    control_->changes.fetch_add(1, std::memory_order_release);
    env_->futex_wake_all(&control_->changes);
}

void HostCopy::finish() {
    end(static_cast<std::int32_t>(LoadState::ready));
    // Weights are shared by all engines of the host: nobody may write them any more. The data mapping of this
    // process stays writable until it is unmapped. Old kernels lack the seal; the copy works without.
    env_->seal(fd_.get(), F_SEAL_FUTURE_WRITE);
}

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
    const int fd = env.open(path.c_str(), O_RDONLY);
    if (fd < 0) return system_status("open " + path, -fd);
    view.fd_ = OwnedFd(env, fd);
    const std::int64_t size = env.file_size(fd);
    if (size < 0) return system_status("stat " + path, static_cast<int>(-size));
    const std::uint64_t expected = bytes + host_copy_control_bytes;
    if (static_cast<std::uint64_t>(size) != expected) {
        return {Code::corrupt, path + " has " + std::to_string(size) + " bytes, a host copy of " +
                                   std::to_string(bytes) + " would have " + std::to_string(expected)};
    }
    if (Status s = map_region(env, fd, bytes, host_copy_control_bytes, PROT_READ, &view.control_page_); !s.ok()) {
        return s;
    }
    view.control_ = reinterpret_cast<const HostCopyControl *>(view.control_page_.data());
    if (view.control_->magic != host_copy_magic || view.control_->version != host_copy_version ||
        view.control_->bytes_total != bytes) {
        return {Code::corrupt, path + " is no host copy of " + std::to_string(bytes) + " bytes, version " +
                                   std::to_string(host_copy_version)};
    }
    *out = std::move(view);
    return {};
}

Status HostCopyView::wait_ready(const std::function<void(std::uint64_t bytes_ready)> &on_progress) const {
    std::uint64_t known = 0;
    for (;;) {
        const std::uint32_t changes = control_->changes.load(std::memory_order_acquire);
        const std::int32_t state = control_->state.load(std::memory_order_acquire);
        // A control page that lies about its size must not lead anybody beyond the mapping.
        const std::uint64_t ready = std::min(control_->bytes_ready.load(std::memory_order_acquire), bytes_);
        if (ready > known) {
            known = ready;
            on_progress(ready);
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
    void *mapped = nullptr;
    const int error = env_->map(address, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd_.get(), 0, &mapped);
    return error < 0 ? system_status("map " + path_, -error) : Status();
}

Status HostCopyView::map(Mapping *out) const { return map_region(*env_, fd_.get(), 0, bytes_, PROT_READ, out); }

}  // namespace sllm
