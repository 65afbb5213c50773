// A host copy: where the weights of one checkpoint lie in the arena, and how far they have come. It is a small shared
// memory file of its own, through which engines of other processes find the chunks and follow the load. HostCopy is the
// loader's side, HostCopyView the engine's.
//
//   offset 0       one page of 4096 bytes: HostCopyControl
//   offset 4096    chunk_count numbers of 4 bytes, padded to a whole page: part i of the weights, arena_chunk_bytes
//                  long (the last one shorter), lies in the arena at number[i] * arena_chunk_bytes
//
// A streamed copy is never whole: its table names the same few chunks over and over, and part i is read when the one
// engine that follows it has acknowledged part i - ring_chunks. That engine tells so in a page of its own, the
// descriptor ack_fd, which it may write; it can spoil its own weights with it and nothing else.
//
// The arena is the descriptor arena_fd of the same process: an engine that opened /proc/<pid>/fd/<n> finds it beside.
// Engines stitch the chunks into one range of addresses with mmap, read-only, one mapping per run of adjacent chunks;
// no byte is copied. After a release the chunks belong to other weights: release only when no engine maps them any
// more, which is when its process has ended or its sllm_engine was destroyed or parked without keeping the copy.
//
// The weights are filled in lanes, consecutive stretches each of which grows from its beginning; one lane is the usual
// case. The loader stores bytes, then the lane's `ready` (release), then raises `changes` and wakes its waiters. A
// reader that sees `ready` (acquire) may read all bytes of the lane before it. `state` changes once, from loading to
// ready or to a negative status; `message` is complete before a failed state is stored.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/limits.h"
#include "core/status.h"
#include "io/owned.h"
#include "store/arena.h"

namespace sllm {

inline constexpr std::uint64_t host_copy_magic = 0x79706f436d6c6c73;  // "sllmCopy" in memory
inline constexpr std::uint32_t host_copy_version = 5;
inline constexpr std::uint64_t host_copy_control_bytes = 4096;

enum class LoadState : std::int32_t { loading = 0, ready = 1 };  // negative: a failed load's Code

struct HostCopyControl {
    std::uint64_t magic;
    std::uint32_t version;
    std::int32_t loader_pid;  // a loader that died leaves `loading` behind for ever: waiters look whether it lives
    std::uint64_t bytes_total;
    std::uint32_t lane_count;
    std::uint32_t reserved;
    std::atomic<std::int32_t> state;
    std::atomic<std::uint32_t> changes;  // futex word
    std::int32_t arena_fd;
    std::uint32_t chunk_count;
    std::uint64_t arena_chunk_bytes;
    std::uint64_t number;  // no other copy of the loader's process ever has it
    std::int32_t ack_fd;         // -1: not streamed
    std::uint32_t ring_chunks;   // of a streamed copy
    char message[512];  // NUL-terminated
    struct Lane {
        std::uint64_t begin;               // offset in the weights; a lane ends where the next begins
        std::atomic<std::uint64_t> ready;  // every byte from begin to this offset is there and verified
    } lanes[limits::devices];
};

// The page of a streamed copy that its engine writes.
struct HostCopyAck {
    std::atomic<std::uint64_t> bytes;  // everything before this offset may be overwritten
};
static_assert(sizeof(HostCopyControl) <= host_copy_control_bytes);
static_assert(offsetof(HostCopyControl, changes) == 36 && offsetof(HostCopyControl, message) == 72);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

// The loader's side. Not thread-safe: the store serialises all calls.
class HostCopy {
public:
    // Creates control page and chunk table. bytes is a multiple of 4096; lanes begin at the given offsets, the first at
    // 0; chunks of the arena cover the weights, or are the ring of a streamed copy, which has one lane. After this
    // nobody else can write the file.
    static Status create(Env &env, std::uint64_t bytes, std::span<const std::uint64_t> lanes, const Arena &arena,
                         const std::vector<std::uint32_t> &chunks, HostCopy *out);

    int fd() const { return fd_.get(); }

    // Tells waiters that every byte of a lane before the offset `end` is valid. Never goes back.
    void set_ready(std::uint32_t lane, std::uint64_t end);

    // What the engine of a streamed copy needs no more; never beyond what was told to be ready.
    std::uint64_t acknowledged() const;

    // The copy is complete.
    void finish();
    // The copy will never be complete.
    void fail(const Status &why);

private:
    void end(std::int32_t state);

    Status create_ack_page(std::uint32_t ring_chunks);

    Env *env_ = nullptr;
    OwnedFd fd_;
    Mapping file_;
    HostCopyControl *control_ = nullptr;
    OwnedFd ack_fd_;
    Mapping ack_page_;
};

// The engine's side: follows a host copy and maps its weights read-only.
class HostCopyView {
public:
    // path is /proc/<pid>/fd/<fd>. CORRUPT when it is no host copy of `bytes`.
    static Status open(Env &env, const std::string &path, std::uint64_t bytes, HostCopyView *out);

    // Whether both follow the same host copy, not merely one of the same weights.
    bool same_copy(const HostCopyView &other) const;

    // Whether bytes stay only until they are acknowledged.
    bool streamed() const { return ack_ != nullptr; }
    // Of a streamed copy: everything before `bytes` may be overwritten. Does nothing to another.
    void acknowledge(std::uint64_t bytes) const;

    // Waits until all bytes are there; a failed load fails this with its status and text. on_range is told of every
    // range that has become valid, each byte once; within a lane in order, and a copy that streams has one. [blocks]
    Status wait_ready(const std::function<void(std::uint64_t begin, std::uint64_t end)> &on_range) const;

    // Maps [0, bytes) read-only at exactly `address`, replacing what is mapped there; bytes is a multiple of 4096.
    Status map_at(void *address, std::uint64_t bytes) const;
    // Maps all weights read-only as one range, anywhere.
    Status map(Mapping *out) const;

private:
    Status open_arena();
    Status open_ack_page();
    Status open_beside(std::int32_t fd, int flags, OwnedFd *out) const;

    Env *env_ = nullptr;
    std::string path_;
    std::uint64_t bytes_ = 0;
    OwnedFd arena_;
    Mapping file_;
    const HostCopyControl *control_ = nullptr;
    Mapping ack_page_;
    HostCopyAck *ack_ = nullptr;
    std::vector<std::uint32_t> chunks_;
};

}  // namespace sllm
