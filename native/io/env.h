// Env: the only door to the operating system. Tests give another one that fails, delays and tears.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "io/read_queue.h"

namespace sllm {

// Every function that can fail returns a negative errno then. All are safe to call from any thread.
class Env {
public:
    virtual ~Env() = default;

    // A file descriptor with close-on-exec.
    virtual int open(const char *path, int flags);
    virtual int close(int fd);
    virtual ssize_t pread(int fd, void *out, std::size_t bytes, std::uint64_t offset);
    virtual ssize_t pwrite(int fd, const void *data, std::size_t bytes, std::uint64_t offset);
    // How many of the bytes [offset, offset + bytes) of a file are in the page cache, in whole pages. -ENOSYS before
    // Linux 6.5.
    virtual std::int64_t cached_bytes(int fd, std::uint64_t offset, std::uint64_t bytes);
    // Many reads in flight. `depth`: the most of them; `buffers`: slots for registered memory. -ENOSYS or -EPERM where
    // the method is missing or forbidden.
    virtual int make_read_queue(ReadMethod method, std::uint32_t depth, std::uint32_t buffers,
                                std::unique_ptr<ReadQueue> *out);
    // Number of the file system that a file lies on: the same as long as it is mounted, on most as long as it exists.
    virtual std::int64_t file_system_of(int fd);
    // Size in bytes of a regular file or of anonymous memory; -EISDIR and the like are up to open.
    virtual std::int64_t file_size(int fd);

    // Anonymous shared memory of the given size, sealable, all zero, readable only for whoever opens it anew.
    virtual int create_memory(const char *name, std::uint64_t bytes);
    // The same in the huge pages that the system keeps in reserve for whoever asks by name (vm.nr_hugepages). The first
    // mapping reserves all of them, and is -ENOMEM when they are too few.
    virtual int create_reserved_memory(const char *name, std::uint64_t bytes);
    // Gives the memory behind [offset, offset + bytes) of anonymous shared memory back; it reads as zeros again.
    virtual int punch_hole(int fd, std::uint64_t offset, std::uint64_t bytes);
    // Lets every process of the same user write to anonymous shared memory that it opens anew.
    virtual int share_writable(int fd);
    // Adds F_SEAL_* flags.
    virtual int seal(int fd, int seals);

    // mmap; *out is set on success.
    virtual int map(void *address, std::size_t bytes, int protection, int flags, int fd, std::uint64_t offset,
                    void **out);
    virtual int unmap(void *address, std::size_t bytes);
    virtual int advise(void *address, std::size_t bytes, int advice);

    // Sleeps while *word == expected, for timeout_us at most. Works across processes that share the page.
    virtual void futex_wait(const std::atomic<std::uint32_t> *word, std::uint32_t expected, std::uint64_t timeout_us);
    virtual void futex_wake_all(std::atomic<std::uint32_t> *word);

    // Processors this process may use: its affinity, and the quota of its container where there is one. At least 1.
    virtual std::uint32_t processors();

    // Bytes of memory of this machine.
    virtual std::uint64_t physical_memory();

    virtual std::int32_t process_id();
    virtual bool process_exists(std::int32_t pid);

    // Milliseconds of a clock that never goes back.
    virtual double now_ms();

    // Raises the soft limit of locked memory to the hard one: registered buffers count against it.
    virtual void raise_memory_lock_limit();

    // A small file as a whole, empty when it cannot be read; and in its place, at once or not at all.
    virtual std::string read_text(const std::string &path);
    virtual bool write_text(const std::string &path, const std::string &text);

    // Processor time of the calling thread in milliseconds.
    virtual double thread_cpu_ms();
    // From now on the calling thread runs only when no other wants the processor.
    virtual void make_thread_idle();

    // The real one.
    static Env &posix();
};

}  // namespace sllm
