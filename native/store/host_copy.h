// A host copy: weights in anonymous shared memory, followed by one control page through which engines of other
// processes follow the load. HostCopy is the loader's side, HostCopyView the engine's.
//
//   offset 0                   weights_bytes of data, a multiple of 4096
//   offset weights_bytes       one page of 4096 bytes: HostCopyControl
//
// The loader stores bytes, then bytes_ready (release), then raises `changes` and wakes its waiters. A reader that sees
// bytes_ready (acquire) may read all bytes before it. `state` changes once, from loading to ready or to a negative
// status; `message` is complete before a failed state is stored.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "core/status.h"
#include "io/owned.h"

namespace sllm {

inline constexpr std::uint64_t host_copy_magic = 0x79706f436d6c6c73;  // "sllmCopy" in memory
inline constexpr std::uint32_t host_copy_version = 1;
inline constexpr std::uint64_t host_copy_control_bytes = 4096;

enum class LoadState : std::int32_t { loading = 0, ready = 1 };  // negative: a failed load's Code

struct HostCopyControl {
    std::uint64_t magic;
    std::uint32_t version;
    std::int32_t loader_pid;  // a loader that died leaves `loading` behind for ever: waiters look whether it lives
    std::uint64_t bytes_total;
    std::atomic<std::uint64_t> bytes_ready;  // every byte before this offset is there and verified
    std::atomic<std::int32_t> state;
    std::atomic<std::uint32_t> changes;  // futex word
    char message[512];                   // NUL-terminated
};
static_assert(sizeof(HostCopyControl) <= host_copy_control_bytes);
static_assert(offsetof(HostCopyControl, changes) == 36 && offsetof(HostCopyControl, message) == 40);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

// The loader's side. Not thread-safe but for data(): the store serialises the rest.
class HostCopy {
public:
    // Creates the shared memory, maps it and writes the control page. bytes is a multiple of 4096.
    static Status create(Env &env, std::uint64_t bytes, HostCopy *out);

    int fd() const { return fd_.get(); }
    // Writable until finish, fail or destruction. [any]
    std::uint8_t *data() const { return data_.data(); }

    // Tells waiters that every byte before `bytes` is valid. Never goes back.
    void set_ready(std::uint64_t bytes);

    // The copy is complete. Later mappings can only read it.
    void finish();
    // The copy will never be complete.
    void fail(const Status &why);
    // Gives the mapping of the data away, so that it can be unmapped where that may take its time: from then on the
    // pages no longer count as this process's. No thread may use data() any more.
    Mapping take_data() { return std::move(data_); }

private:
    void end(std::int32_t state);

    Env *env_ = nullptr;
    OwnedFd fd_;
    Mapping data_;
    Mapping control_page_;
    HostCopyControl *control_ = nullptr;
};

// The engine's side: follows a host copy and maps it read-only.
class HostCopyView {
public:
    // path is /proc/<pid>/fd/<fd> or any file of this format. CORRUPT when it is no host copy of `bytes`.
    static Status open(Env &env, const std::string &path, std::uint64_t bytes, HostCopyView *out);

    // Waits until all bytes are there; a failed load fails this with its status and text. on_progress is told whenever
    // more bytes have become valid, from offset 0. [blocks]
    Status wait_ready(const std::function<void(std::uint64_t bytes_ready)> &on_progress) const;

    // Maps [0, bytes) read-only at exactly `address`, replacing what is mapped there; bytes is a multiple of 4096.
    Status map_at(void *address, std::uint64_t bytes) const;
    // Maps all data read-only, anywhere.
    Status map(Mapping *out) const;

private:
    Env *env_ = nullptr;
    std::string path_;
    std::uint64_t bytes_ = 0;
    OwnedFd fd_;
    Mapping control_page_;
    const HostCopyControl *control_ = nullptr;
};

}  // namespace sllm
